"""Measure what has been claimed of these versions of CUDA, torch and flash-attn, beside what is true.

Each claim is measured on this machine where it can be: in NVIDIA's wheels (only the files in question travel), in
flash-attn wheels, in the releases table, and in the findings of the last run in --out. Writes --out/claims.json and,
where a report is there, puts the table on its page. Exit 1 when a measurement contradicts the table's verdict.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from assay.claims import exit_code, load, measure_all
from assay.claims.measures import FUNCTIONS
from assay.claims.table import Context, Line, select
from assay.commands.common import add_out, add_wheelhouse
from assay.errors import ExitCode
from assay.files import write_json
from assay.report import read, write

OUTCOMES = {
    True: ("bears the verdict out", "green"),
    False: ("CONTRADICTS the verdict", "red"),
    None: ("settles nothing here", "yellow"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_out(parser)
    parser.add_argument("--claim", action="append", default=[], metavar="ID", help="only this claim; may be repeated")
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="what to print (default: %(default)s)"
    )
    add_wheelhouse(parser, "folder with flash-attn wheels to read")


def run(args: argparse.Namespace) -> ExitCode:
    """Measure, print, write."""
    claims = select(load(), args.claim)
    found = args.out / "report.json"
    report = read(found) if found.is_file() else None
    context = Context(report=report, wheelhouses=tuple(args.wheelhouse))
    lines = []
    for line in measure_all(claims, context, FUNCTIONS):
        lines.append(line)
        print(f"{line.id}: {OUTCOMES[line.supports][0]}", file=sys.stderr)
    raw = [line.to_json() for line in lines]
    if args.format == "json":
        print(json.dumps(raw, indent=2))
    else:
        Console().print(table(lines))
        print(summary(lines))
    if not args.claim:
        write_json(args.out / "claims.json", raw)
        if report:
            write(report, args.out, claims=raw)
    return exit_code(lines)


def table(lines: list[Line]) -> Table:
    """Return the claims for the terminal: a paragraph each, so that it can be read in 80 columns too."""
    result = Table.grid(padding=(0, 1))
    result.add_column(justify="right", no_wrap=True)
    result.add_column(overflow="fold")
    for line in lines:
        outcome, style = OUTCOMES[line.supports]
        result.add_row("claim", f"[bold]{_plain(line.claim)}[/]")
        result.add_row("verdict", f"[bold]{line.verdict}[/]: {_plain(line.truth)}")
        result.add_row("measured", f"{_plain(line.measured)} [{style}]({outcome})[/]")
        result.add_row("see", f"[dim]{_plain(line.how)}[/]")
        result.add_row()
    return result


def summary(lines: list[Line]) -> str:
    """Return how many measurements bear the verdicts out, contradict them, and settle nothing."""
    counts = Counter(line.supports for line in lines)
    return f"verdicts: {counts[True]} borne out, {counts[False]} contradicted, {counts[None]} not settled here"


def _plain(text: str) -> str:
    """Keep square brackets from being read as markup."""
    return text.replace("[", r"\[")
