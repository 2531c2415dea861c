"""Push certified images to a registry, with certificate, SBOM, provenance and signature; set their tags last.

Refused, with nothing published: a row that is not certified at the level that the matrix asks for ([publish] level, or
the row's own required-level), whose certificate does not verify, or whose image changed since. Rows that the matrix
expects to be rejected are left out.
"""

from __future__ import annotations

import argparse

from assay import checks, releases
from assay.commands.common import add_matrix_options, add_signing_key, read_matrix
from assay.commands.registry_options import (
    DEFAULT_REPOSITORY,
    add_allow_http,
    add_registry,
    registry_of,
    say,
)
from assay.engine import Engine
from assay.errors import ExitCode
from assay.findings import Level
from assay.keys import load_signing_key
from assay.oci import parse_reference
from assay.publish.flow import Settings, publish
from assay.publish.gate import Policy, select


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_matrix_options(parser)
    add_registry(parser)
    add_allow_http(parser)
    add_signing_key(parser)
    parser.add_argument(
        "--level", choices=("image", "gpu"), help="level to ask of every row, in place of the matrix's own"
    )
    parser.add_argument(
        "--accept-unsigned",
        action="store_true",
        help="with a key: take certificates that were recorded unsigned, and sign them now",
    )
    parser.add_argument(
        "--backwards", action="store_true", help="let moving tags go to images certified before those that they name"
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Publish the rows and print a pinned reference for each."""
    matrix, rows = read_matrix(args)
    target = parse_reference(args.registry, DEFAULT_REPOSITORY)
    key = load_signing_key(args.key)
    if key is None:
        say("no key: certificates are published UNSIGNED")
    table = releases.load()
    policy = Policy(
        level=Level(args.level) if args.level else None,
        key=key.public if key else None,
        accept_unsigned=args.accept_unsigned,
        checks_digest=checks.digest(),
        releases_digest=table.digest,
        required=checks.required,
        capability=lambda name: table.gpu(name).capability,
    )
    engine = Engine.connect(start=False)
    candidates = select(rows, named=args.row, out=args.out, image_id=engine.image_id, policy=policy, on_line=say)
    settings = Settings(target=target, prefix=matrix.publish.prefix, key=key, out=args.out, backwards=args.backwards)
    published = publish(
        candidates, engine=engine, registry=registry_of(target.host, args), settings=settings, on_line=say
    )
    for one in published:
        print(one.reference)
    return ExitCode.AS_EXPECTED
