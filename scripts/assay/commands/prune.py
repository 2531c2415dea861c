"""List what newer images replace and what broken pushes left behind; remove it with --remove.

Kept in any case: what a moving tag names, the newest images of each row, images that carry no certificate which is
believed, and whatever is attached to something kept. Run it while nothing is being published.
"""

from __future__ import annotations

import argparse

from assay import prune
from assay.commands.registry_options import (
    DEFAULT_REPOSITORY,
    add_allow_http,
    add_registry,
    add_trust,
    registry_of,
    say,
    trust_of,
)
from assay.errors import ExitCode, UsageError
from assay.oci import parse_reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_registry(parser)
    add_trust(parser)
    add_allow_http(parser)
    parser.add_argument("--keep", type=int, default=1, metavar="N", help="images of each row to keep (default: 1)")
    parser.add_argument("--remove", action="store_true", help="remove what is listed")


def run(args: argparse.Namespace) -> ExitCode:
    """List, and remove where asked to."""
    if args.keep < 1:
        raise UsageError(f"--keep {args.keep}: at least the newest image of each row stays")
    target = parse_reference(args.registry, DEFAULT_REPOSITORY)
    registry = registry_of(target.host, args)
    found = prune.find(registry, target, trust_of(args), args.keep)
    code = ExitCode.AS_EXPECTED
    for one in found:
        word = "would remove"
        if args.remove:
            removed = prune.remove(registry, target, one)
            word = "removed" if removed else "could not remove"
            code = code if removed else ExitCode.NOT_AS_EXPECTED
        print(f"{word} {one.name}: {one.why}")
    if code is not ExitCode.AS_EXPECTED:
        say(f"{target.host} allows no deleting; remove the rest by its own means")
    elif not found:
        say("nothing to remove")
    return code
