"""Make a key pair for signing certificates: assay.key, which stays secret, and assay.pub, for everybody.

The private key is encrypted where the environment variable ASSAY_KEY_PASSWORD is set. `assay matrix`, `assay publish`
and `assay revoke` take it by --key, or its text from the environment variable ASSAY_KEY.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from assay import keys
from assay.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="folder to write both into (default: .)"
    )
    parser.add_argument(
        "--type",
        choices=("ecdsa-p256", "ed25519"),
        default="ecdsa-p256",
        help="kind of key (default: %(default)s, which every client reads)",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Write the pair and print where."""
    key = keys.generate(args.type)
    password = os.environ.get(keys.PASSWORD_VARIABLE)
    private, public = keys.write_pair(key, args.out, password.encode() if password else None)
    print(f"{private}  private, {'encrypted' if password else 'NOT encrypted'}: keep it out of every repository")
    print(f"{public}  public, key id {key.public.keyid}")
    return ExitCode.AS_EXPECTED
