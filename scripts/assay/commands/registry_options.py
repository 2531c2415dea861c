"""Options of the commands that talk to a registry, and what they stand for."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from assay import keys
from assay.keys import PublicKey
from assay.registry import Registry
from assay.verify import Trust

DEFAULT_REPOSITORY = "newbie-image"
"""The repository where `--registry` names only a host."""


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Add `--registry`."""
    parser.add_argument(
        "--registry",
        required=True,
        metavar="HOST[:PORT][/REPOSITORY]",
        help=f"the registry and the repository in it, {DEFAULT_REPOSITORY} where none is named",
    )


def add_allow_http(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-http`."""
    parser.add_argument("--allow-http", action="store_true", help="let the registry speak plain HTTP")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--key` and `--allow-unsigned` for commands that check signatures."""
    parser.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="public key (PEM) to believe, may be given more than once;"
        f" else the environment variable {keys.PUBLIC_KEY_VARIABLE}",
    )
    parser.add_argument("--allow-unsigned", action="store_true", help="believe certificates that nobody signed")


def trust_of(args: argparse.Namespace) -> Trust:
    """Return whom the command line says to believe."""
    given = [keys.load_public_key(path) for path in args.key or [None]]
    found: list[PublicKey] = [key for key in given if key is not None]
    return Trust(keys=tuple(found), allow_unsigned=args.allow_unsigned)


def registry_of(host: str, args: argparse.Namespace) -> Registry:
    """Return the registry on a host; what it has to be asked again is told on stderr."""
    return Registry(host, allow_http=args.allow_http, on_retry=say)


def say(line: str) -> None:
    """Print a line beside the results."""
    print(f"assay: {line}", file=sys.stderr, flush=True)
