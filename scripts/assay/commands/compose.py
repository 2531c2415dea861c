"""Write each row's Dockerfile and build context into OUT/<row>/.

Each is usable by plain Docker as well: `DOCKER_BUILDKIT=1 docker build --network host OUT/<row>` builds on the base
that the row names, and with `--build-arg BASE=...` on another one. Needs no engine.
"""

from __future__ import annotations

import argparse

from rich.console import Console

from assay import wheels
from assay.commands.common import add_matrix_options, add_wheelhouse, read_matrix
from assay.compose import compose
from assay.errors import ExitCode
from assay.files import exclusive
from assay.network import NetworkSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_matrix_options(parser)
    parser.add_argument(
        "--frontend",
        choices=("buildkit", "classic"),
        default="buildkit",
        help="what will build it; classic is for engines without BuildKit (default: %(default)s)",
    )
    parser.add_argument("--link", action="store_true", help="use COPY --link, which needs Docker Engine 23 or newer")
    add_wheelhouse(parser, "folder with flash-attn wheels")


def run(args: argparse.Namespace) -> ExitCode:
    """Compose the rows."""
    _, rows = read_matrix(args)
    network = NetworkSettings.from_host()
    console = Console()
    with exclusive(args.out):
        for row in rows:
            wheel = wheels.lookup(row, wheelhouses=args.wheelhouse)
            composed = compose(
                row,
                out=args.out,
                network=network,
                wheel=wheel,
                frontend=args.frontend,
                link=args.link,
                files_from=args.matrix.parent,
            )
            console.print(f"{row.id}: {composed.dockerfile}", highlight=False, soft_wrap=True)
    return ExitCode.AS_EXPECTED
