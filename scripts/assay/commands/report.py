"""Show the last report again, or merge the reports of parallel jobs.

--merge takes report.json files or folders that hold them, writes the merged report into --out, and exits 3 when a row
of the matrix is in none of them: a row that was not judged proves nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from assay import verdict
from assay.commands.common import add_matrix_options, read_matrix
from assay.commands.diff import report_path
from assay.compose.context import MACHINE
from assay.errors import ExitCode, UsageError
from assay.report import write
from assay.report.model import Report, merge, read
from assay.report.table import console, table
from assay.verdict import Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_matrix_options(parser)
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        default=[],
        metavar="REPORT",
        help="reports of single rows to join",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Print the report, after merging where asked to."""
    missing: tuple[str, ...] = ()
    if args.merge:
        _, rows = read_matrix(args)
        paths = [report_path(path) for path in args.merge]
        reports = [read(path) for path in paths]
        report, missing = merge(reports, [row.id for row in rows])
        for path, part in zip(paths, reports, strict=True):
            _bring_row_folders(path.parent, part, args.out)
        write(report, args.out)
    else:
        report = read(report_path(args.out))
    screen = console()
    screen.print(table(report, screen.width))
    for row_id in missing:
        print(f"assay: row {row_id} is in none of the reports", file=sys.stderr)
    code = exit_code(report)
    return ExitCode.INCONCLUSIVE if missing and code is ExitCode.AS_EXPECTED else code


def exit_code(report: Report) -> ExitCode:
    """Return the exit code of a report's rows, as `verdict.exit_code` weighs them."""
    return verdict.exit_code(
        Verdict(verdict=row.verdict, as_expected=row.as_expected, complete=row.complete) for row in report.rows
    )


def _settings_of(row_folder: Path) -> Callable[[str, list[str]], set[str]]:
    """Return what tells `copytree` to leave out a row's network settings, and nothing else of that name."""
    return lambda folder, names: {MACHINE} & set(names) if Path(folder) == row_folder else set()


def _bring_row_folders(source: Path, report: Report, out: Path) -> None:
    """Copy the rows' folders (certificate, sample, log) to where the merged report's links expect them.

    A machine's network settings stay with the machine: they may hold passwords.
    """
    for row in report.rows:
        folder, target = source / row.id, out / row.id
        if folder.is_dir() and folder.resolve() != target.resolve():
            try:
                shutil.copytree(folder, target, dirs_exist_ok=True, ignore=_settings_of(folder))
            except OSError as error:
                raise UsageError(f"cannot copy {folder} to {target}: {error}") from error
