"""Build every row's image, check it, and certify or reject it.

A row whose certificate of an earlier run still holds (same row, ingredients, checks, releases, image) is not built or
checked again. Everything is written into --out: report.json, report.html, junit.xml, and a folder per row.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from assay.commands.common import add_judging_options, add_matrix_options, add_signing_key, read_matrix
from assay.commands.report import exit_code
from assay.errors import AssayError, ExitCode, UsageError
from assay.progress import View
from assay.report.table import console, table
from assay.workflow import Settings, run_matrix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_matrix_options(parser)
    add_judging_options(parser)
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="rows to build and check side by side; checks that use the GPU take turns (default: %(default)s)",
    )
    parser.add_argument("--fresh", action="store_true", help="judge every row anew, whatever its certificate says")
    add_signing_key(parser)


def run(args: argparse.Namespace) -> ExitCode:
    """Run the matrix."""
    if args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: at least one row at a time")
    matrix, rows = read_matrix(args)
    settings = Settings.from_arguments(args)
    view = View([row.id for row in rows])
    with interruptible() as cancel:
        report = run_matrix(matrix, rows, settings, view=view, cancel=cancel)
    screen = console()
    screen.print(table(report, screen.width))
    print(f"report: {args.out}/report.html, {args.out}/report.json", file=sys.stderr)
    if cancel.is_set():
        raise KeyboardInterrupt  # everything is stopped and written; `cli` has the words and the exit code
    return exit_code(report)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into an event that work looks at; a second one ends the process at once.

    What fails after that (an engine that never answered) fails an interrupted run: it ends as one.
    """
    cancel = threading.Event()

    def interrupt(number: int, _frame: Any) -> None:
        cancel.set()
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_DFL)
        print(
            f"\nassay: {signal.Signals(number).name}: stopping what runs; once more ends at once",
            file=sys.stderr,
        )

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    except AssayError:
        if cancel.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
