"""List the rows of the matrix. Needs no engine.

--format github prints one line for a GitHub Actions job output: {"include": [{"row": ..., "runner": [...]}, ...]}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assay.commands.common import add_matrix_options, read_matrix
from assay.errors import ExitCode
from assay.matrix.row import Row
from assay.report.table import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_matrix_options(parser, out=False)
    parser.add_argument(
        "--format",
        choices=("table", "json", "github"),
        default="table",
        help="default: %(default)s",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Print the plan."""
    _, rows = read_matrix(args)
    if args.format == "table":
        console().print(_table(rows))
    else:
        plan: Any = github(rows) if args.format == "github" else [asdict(row) for row in rows]
        print(json.dumps(plan, indent=None if args.format == "github" else 2, default=str))
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


def _table(rows: Sequence[Row]) -> RenderableType:
    grid = Table(box=box.SIMPLE_HEAD)
    for title in ("row", "base", "CUDA", "toolkit", "torch", "flash-attn", "expected"):
        grid.add_column(title, overflow="fold")
    for row in rows:
        cells = (
            row.id,
            row.base,
            row.cuda,
            row.toolkit + ("+path" if row.library_path == "toolkit" else ""),
            row.torch,
            f"{row.flash_attn.version} {row.flash_attn.source}",
            row.expect,
        )
        grid.add_row(*(Text(cell) for cell in cells))
    reasons = [Text(f"{row.id}: {one.check} matching {one.matches}") for row in rows for one in row.because]
    return Group(grid, Text("reasons for which rows must be rejected:"), *reasons) if reasons else grid
