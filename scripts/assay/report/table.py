"""The table at the end of a run."""

from __future__ import annotations

import re

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from assay.findings import Finding
from assay.report.model import Report, RowReport

VERDICT_STYLE = {"certified": "bold green", "rejected": "bold red", "inconclusive": "bold yellow"}
# Narrower than this, the reasons get lines of their own: beside the other columns they would be a word wide.
WIDE = 120
# A log file has no width; lines of this one hold a reason, and fit the log viewers of CI services.
LOG_WIDTH = 160


def console() -> Console:
    """Return the console for results: as wide as the terminal, or wide enough for a reason in a log."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=LOG_WIDTH)


def table(report: Report, width: int = WIDE) -> RenderableType:
    """Return the report as a table: row, expected, verdict, root failure with its evidence, image, seconds.

    width: columns of the place where it will be shown.
    """
    wide = width >= WIDE
    grid = Table(box=box.SIMPLE_HEAD, expand=wide, pad_edge=False)
    grid.add_column("row", no_wrap=True)
    grid.add_column("expected", no_wrap=True)
    grid.add_column("verdict")
    if wide:
        grid.add_column("root failure: evidence", ratio=1)
    grid.add_column("image", no_wrap=True)
    grid.add_column("build s", justify="right", no_wrap=True)
    grid.add_column("checks s", justify="right", no_wrap=True)
    below: list[Text] = []
    for row in report.rows:
        reasons = _reasons(row)
        grid.add_row(
            Text(row.id),
            Text(row.expect),
            _verdict(row),
            *([Text("\n".join(reasons))] if wide else []),
            Text(row.image.id.removeprefix("sha256:")[:12] if row.image else "none"),
            Text(f"{row.build_seconds:.0f}"),
            Text(f"{row.check_seconds:.0f}"),
        )
        below += [] if wide else [Text(f"{row.id}: {reason}") for reason in reasons]
    return Group(grid, *below, Text(_summary(report)))


def one_line(text: str, limit: int = 160) -> str:
    """Return the last line of `text` that says something, shortened in the middle to `limit` characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    if len(line) <= limit:
        return line
    head = limit // 2 - 1
    return f"{line[:head]}...{line[-(limit - head - 3) :]}"


def in_full(text: str, limit: int = 480) -> str:
    """Return a message of several lines as one, from its beginning, where it says what happened."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def human_bytes(count: int) -> str:
    """Return a size in decimal units, as Docker prints them."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _verdict(row: RowReport) -> Text:
    verdict = Text(row.verdict, style=VERDICT_STYLE[row.verdict])
    if not row.as_expected:
        verdict.append(" (not as expected)", style="bold red")
    if row.cached:
        verdict.append(" cached", style="dim")
    return verdict


def _reasons(row: RowReport) -> list[str]:
    if row.verdict == "inconclusive":
        return [in_full(row.why)]
    lines = [f"{failure.check}: {one_line(telling_line(row, failure))}" for failure in row.root_failures]
    return lines if row.as_expected else [*lines, row.why]


def telling_line(row: RowReport, failure: Finding) -> str:
    """Return the line of a failure's evidence that the row expects, or all of it where none fits."""
    text = failure.evidence or failure.measured
    patterns = [reason["matches"] for reason in row.because if reason["check"] == failure.check]
    return next((line for line in text.splitlines() for pattern in patterns if re.search(pattern, line)), text)


def _summary(report: Report) -> str:
    wrong = [row.id for row in report.rows if not row.as_expected]
    parts = [
        f"{len(report.rows) - len(wrong)} of {len(report.rows)} rows as expected",
        f"level {report.level.value}",
        f"{report.seconds:.0f} s",
    ]
    if report.storage:
        parts.append(
            f"images take {human_bytes(report.storage['total'])} "
            f"({human_bytes(report.storage['shared'])} saved by sharing layers)"
        )
    if wrong:
        parts.append("not as expected: " + ", ".join(wrong))
    return "; ".join(parts)
