"""Run the checks of a row on any image that the engine has, whoever built it.

Writes report.json with that one row, report.html, junit.xml and the row's folder into build/check/ID, or into --out. A
folder with a report or certificate of `assay matrix` is refused: it would be overwritten. Exit 0 when the image is
certified, 1 when it is rejected, 3 when the evidence is inconclusive, whatever the matrix expects of the row.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from assay.commands.common import add_judging_options, add_matrix_options, add_signing_key, read_matrix
from assay.commands.matrix import interruptible
from assay.errors import ExitCode, UsageError
from assay.progress import View
from assay.report.table import console, table
from assay.workflow import Settings, check_image

FOLDER = Path("build", "check")
"""Beside the folders of the matrix's own rows, none of which may be called `check`."""
CODES = {
    "certified": ExitCode.AS_EXPECTED,
    "rejected": ExitCode.NOT_AS_EXPECTED,
    "inconclusive": ExitCode.INCONCLUSIVE,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("image", metavar="IMAGE", help="tag or id of an image in the engine")
    add_matrix_options(parser, out=False, row_help="the row to judge the image as; has to be given")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder for everything that is written (default: {FOLDER}/ID, after the row)",
    )
    add_judging_options(parser)
    add_signing_key(parser)


def run(args: argparse.Namespace) -> ExitCode:
    """Check the image."""
    if len(args.row) != 1:
        raise UsageError("assay check judges one image as one row: give --row ID once")
    matrix, (row,) = read_matrix(args)
    args.out = args.out or FOLDER / row.id
    view = View([row.id])
    with interruptible() as cancel:
        report = check_image(args.image, matrix, row, Settings.from_arguments(args), view=view, cancel=cancel)
    screen = console()
    screen.print(table(report, screen.width))
    print(f"report: {args.out}/report.html, {args.out}/report.json", file=sys.stderr)
    if cancel.is_set():
        raise KeyboardInterrupt  # everything is stopped and written; `cli` has the words and the exit code
    return CODES[report.rows[0].verdict]
