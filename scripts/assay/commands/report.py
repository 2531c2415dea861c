"""Show the last report again, or merge the reports of parallel jobs. With --row, only of these rows.

--merge takes report.json files or folders that hold them, brings each row's folder along, and writes the merged report
into --out. A row of the matrix that none of them holds stands in it as inconclusive, and the exit code is 3: a row that
was not judged proves nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from assay import row_record, verdict
from assay.commands.common import add_matrix_options, read_matrix, report_path
from assay.compose.context import MACHINE
from assay.errors import ExitCode, UsageError
from assay.files import exclusive
from assay.findings import Level
from assay.report import write
from assay.report.merge import merge
from assay.report.model import Report, read
from assay.report.table import console, table
from assay.report.write import ROW_FILES
from assay.verdict import Verdict

ABSENT = "in none of the reports: its job did not run, or its report did not arrive; run it, and merge again"


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
        report, missing = _merge(args)
    else:
        path = report_path(args.out)
        report = read(path).select(args.row, str(path))
    screen = console()
    screen.print(table(report, screen.width))
    for row_id in missing:
        print(f"assay: row {row_id} is {ABSENT}", file=sys.stderr)
    return exit_code(report)


def exit_code(report: Report) -> ExitCode:
    """Return the exit code of a report's rows, as `verdict.exit_code` weighs them."""
    return verdict.exit_code(
        Verdict(verdict=row.verdict, as_expected=row.as_expected, complete=row.complete) for row in report.rows
    )


def _merge(args: argparse.Namespace) -> tuple[Report, tuple[str, ...]]:
    """Write the merged report. Returns it with the ids of the rows that none of the reports holds."""
    matrix, rows = read_matrix(args)
    wanted = {row.id for row in rows}
    paths = [report_path(path) for path in args.merge]
    parts = [(str(path), read(path)) for path in paths]
    merged, missing = merge(parts, [row_record.inconclusive(row, Level.IMAGE, ABSENT) for row in matrix.rows])
    report = merged.select(args.row, str(args.matrix))
    with exclusive(args.out):
        for path, (_, part) in zip(paths, parts, strict=True):
            for row in part.rows:
                if row.id in wanted:
                    _bring(path.parent / row.id, args.out / row.id)
        write(report, args.out)
    return report, tuple(row_id for row_id in missing if row_id in wanted)


def _settings_of(row_folder: Path) -> Callable[[str, list[str]], set[str]]:
    """Return what tells `copytree` to leave out a row's network settings, and nothing else of that name."""
    return lambda folder, names: {MACHINE} & set(names) if Path(folder) == row_folder else set()


def _bring(folder: Path, target: Path) -> None:
    """Put a row's folder (certificate, sample, log) where the merged report links it.

    Of what lay there before, nothing stays that the row's own folder does not have: it would pass for this verdict's.
    A machine's network settings stay with the machine: they may hold passwords.
    """
    if not folder.is_dir() or folder.resolve() == target.resolve():
        return
    try:
        shutil.copytree(folder, target, dirs_exist_ok=True, ignore=_settings_of(folder))
        for name in ROW_FILES:
            if not (folder / name).is_file():
                (target / name).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot copy {folder} to {target}: {error}; mend that, or merge into another --out"
        ) from error
