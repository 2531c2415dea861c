"""The table at the end of a run."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assay.report.model import Report, RowReport

VERDICT_STYLE = {"certified": "bold green", "rejected": "bold red", "inconclusive": "bold yellow"}


def table(report: Report) -> RenderableType:
    """Return the report as a table: row, expected, verdict, root failure with its evidence, image, seconds."""
    grid = Table(box=box.SIMPLE_HEAD, expand=True)
    grid.add_column("row", no_wrap=True)
    grid.add_column("expected", no_wrap=True)
    grid.add_column("verdict", no_wrap=True)
    grid.add_column("root failure, evidence", ratio=1)
    grid.add_column("image", no_wrap=True)
    grid.add_column("build s", justify="right", no_wrap=True)
    grid.add_column("checks s", justify="right", no_wrap=True)
    for row in report.rows:
        verdict = Text(row.verdict, style=VERDICT_STYLE[row.verdict])
        if not row.as_expected:
            verdict.append(" (not as expected)", style="bold red")
        if row.cached:
            verdict.append(" cached", style="dim")
        grid.add_row(
            Text(row.id),
            Text(row.expect),
            verdict,
            _reason(row),
            Text(row.image.id.removeprefix("sha256:")[:12] if row.image else "none"),
            Text(f"{row.build_seconds:.0f}"),
            Text(f"{row.check_seconds:.0f}"),
        )
    return Group(grid, Text(_summary(report)))


def one_line(text: str, limit: int = 160) -> str:
    """Return the last line of `text` that says something, shortened in the middle to `limit` characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    if len(line) <= limit:
        return line
    head = limit // 2 - 1
    return f"{line[:head]}...{line[-(limit - head - 3) :]}"


def human_bytes(count: int) -> str:
    """Return a size in decimal units, as Docker prints them."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _reason(row: RowReport) -> Text:
    if row.verdict == "inconclusive":
        return Text(one_line(row.why))
    if not row.root_failures:
        return Text("" if row.as_expected else row.why)
    lines = [f"{finding.check}: {one_line(finding.evidence or finding.measured)}" for finding in row.root_failures]
    if not row.as_expected:
        lines.append(row.why)
    return Text("\n".join(lines))


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
