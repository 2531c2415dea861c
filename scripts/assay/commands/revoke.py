"""Take an image's certificates back: a signed statement beside them, which `assay verify` honours.

The image and its tags stay. Certify and publish the image again to take the revocation back.
"""

from __future__ import annotations

import argparse

from assay.commands.common import add_signing_key
from assay.commands.registry_options import add_allow_http, registry_of, say
from assay.errors import ExitCode, UsageError
from assay.keys import load_signing_key
from assay.oci import parse_reference
from assay.revoke import revoke


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("image", metavar="IMAGE", help="HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]")
    parser.add_argument("--reason", required=True, help="why, in one line, for those who pull the image")
    add_signing_key(parser)
    add_allow_http(parser)


def run(args: argparse.Namespace) -> ExitCode:
    """Revoke and print the pinned reference."""
    if not args.reason.strip():
        raise UsageError("--reason is empty: say why, for those who pull the image")
    reference = parse_reference(args.image)
    key = load_signing_key(args.key)
    if key is None:
        say("no key: the revocation is UNSIGNED, and whoever verifies with a key does not honour it")
    print(f"revoked {revoke(registry_of(reference.host, args), reference, args.reason.strip(), key)}")
    return ExitCode.AS_EXPECTED
