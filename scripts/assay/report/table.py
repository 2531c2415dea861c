"""The table at the end of a run."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from assay.report import words
from assay.report.model import Report, RowReport

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

    The level is a column only where rows differ in it; a narrow table then has no room for the image.
    width: columns of the place where it will be shown.
    """
    wide = width >= WIDE
    by_level = words.levels_differ(report)
    grid = Table(box=box.SIMPLE_HEAD, expand=wide, pad_edge=False)
    grid.add_column("row", no_wrap=True)
    grid.add_column("expected", no_wrap=True)
    grid.add_column("verdict")
    if by_level:
        grid.add_column("level", no_wrap=True)
    if wide:
        grid.add_column("root failure: evidence", ratio=1)
    if wide or not by_level:
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
            *([Text(words.level(row))] if by_level else []),
            *([Text("\n".join(reasons))] if wide else []),
            *([Text(words.short_id(row))] if wide or not by_level else []),
            Text(f"{row.build_seconds:.0f}"),
            Text(f"{row.check_seconds:.0f}"),
        )
        below += [] if wide else [Text(f"{row.id}: {reason}") for reason in reasons]
    return Group(grid, *below, Text(_summary(report)))


def _verdict(row: RowReport) -> Text:
    outcome = words.outcome(row)
    verdict = Text(row.verdict, style=words.OUTCOME_STYLE[outcome])
    if not row.as_expected:
        verdict.append(f" ({words.OUTCOME_WORDS[outcome]})")
    if row.cached:
        verdict.append(" cached", style="not bold dim")
    return verdict


def _reasons(row: RowReport) -> list[str]:
    if row.verdict == "inconclusive":
        return [words.in_full(row.why)]
    lines = [f"{failure.check}: {words.one_line(words.telling_line(row, failure))}" for failure in row.root_failures]
    return lines if row.as_expected else [*lines, row.why]


def _summary(report: Report) -> str:
    wrong = [row.id for row in report.rows if not row.as_expected]
    parts = [words.score(report), words.levels(report), f"{report.seconds:.0f} s", words.storage(report)]
    if wrong:
        parts.append("not as expected: " + ", ".join(wrong))
    return "; ".join(part for part in parts if part)
