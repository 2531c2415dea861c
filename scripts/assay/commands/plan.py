"""List the rows of the matrix. Needs no engine.

The table has a column for whatever differs between the rows; what they share stands once below it. --format json holds
every field of every row. --format github prints one line for a GitHub Actions job output:
{"include": [{"row": ..., "runner": [...]}, ...]}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from assay.commands.common import add_matrix_options, read_matrix
from assay.commands.plan_table import table
from assay.errors import ExitCode, UsageError
from assay.matrix.row import Row
from assay.report.table import console

# https://docs.github.com/en/actions/reference/limits: jobs that one matrix may make in a workflow run.
GITHUB_JOBS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_matrix_options(parser, out=False)
    parser.add_argument(
        "--format",
        choices=("table", "json", "github"),
        default="table",
        help="what to print (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Print the plan."""
    _, rows = read_matrix(args)
    if args.format == "table":
        screen = console()
        screen.print(table(rows, screen.width))
    elif args.format == "json":
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        if len(rows) > GITHUB_JOBS:
            raise UsageError(
                f"{args.matrix}: {len(rows)} rows, and GitHub Actions makes at most {GITHUB_JOBS} jobs of one matrix: "
                "split the file in two, or plan part of it with --row ID"
            )
        print(json.dumps(github(rows)))
    return ExitCode.AS_EXPECTED


def github(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows as GitHub Actions' `strategy.matrix` takes them: one job per row, on the runner that it names."""
    return {
        "include": [
            {
                "row": row.id,
                "runner": list(row.runner),
                "expect": row.expect,
                "level": row.required_level.value,
            }
            for row in rows
        ]
    }
