"""Show what changed between two reports: rows, verdicts, levels, images, ingredients, findings.

Left out is what differs in every run: times, and what a check measured where it passed both times (--measured shows
it). Exit 0 without any difference, 1 with some, as diff(1) does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from assay.commands.common import report_path
from assay.errors import ExitCode
from assay.report.diff import diff
from assay.report.model import read
from assay.report.table import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("before", type=Path, metavar="A", help="a report.json, or a folder that holds one")
    parser.add_argument("after", type=Path, metavar="B", help="the one to compare with it")
    parser.add_argument(
        "--measured", action="store_true", help="show too where a check passed both times and measured something else"
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Print the changes. Exit 0 without any, 1 with some, as diff(1) does."""
    changes = diff(read(report_path(args.before)), read(report_path(args.after)), measured=args.measured)
    screen = console()
    if not changes:
        print("no difference" if args.measured else "no difference besides times and what passing checks measured")
        return ExitCode.AS_EXPECTED
    grid = Table(box=box.SIMPLE_HEAD)
    for title in ("row", "what", str(args.before), str(args.after)):
        grid.add_column(title, overflow="fold")
    for change in changes:
        grid.add_row(*(Text(cell) for cell in (change.row, change.subject, change.before, change.after)))
    screen.print(grid)
    return ExitCode.NOT_AS_EXPECTED
