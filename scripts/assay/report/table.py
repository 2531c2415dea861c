"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from assay.report import words
from assay.report.model import Report, RowReport

# Narrower than this, the reasons get lines of their own: beside the other columns they would be a word wide.
WIDE = 120
# Columns that every table has, columns whose lines may wrap, and what stands between two columns.
KEPT = ("row", "expected", "verdict")
WRAPPED = ("verdict", "root failure: evidence")
GAP = 3
# A log file has no width; lines of this one hold a reason, and fit the log viewers of CI services.
LOG_WIDTH = 160


def console() -> Console:
    """Return the console for results: as wide as the terminal, or wide enough for a reason in a log."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=LOG_WIDTH)


def table(report: Report, width: int = WIDE) -> RenderableType:
    """Return the report as a table: row, expected, verdict, root failure with its evidence, image, seconds.

    The level is a column only where rows differ in it. In a narrow table the reasons stand below, and columns are left
    out, the image and then from the last one on, until no word has to be broken: the verdicts are always there.
    width: columns of the place where it will be shown.
    """
    wide = width >= WIDE
    rows = report.rows
    columns: dict[str, list[Text]] = {
        "row": [Text(row.id) for row in rows],
        "expected": [Text(row.expect) for row in rows],
        "verdict": [_verdict(row) for row in rows],
    }
    if words.levels_differ(report):
        columns["level"] = [Text(words.level(row)) for row in rows]
    if wide:
        columns["root failure: evidence"] = [Text("\n".join(_reasons(row))) for row in rows]
    if wide or "level" not in columns:
        columns["image"] = [Text(words.short_id(row)) for row in rows]
    columns["build s"] = [Text(f"{row.build_seconds:.0f}") for row in rows]
    columns["checks s"] = [Text(f"{row.check_seconds:.0f}") for row in rows]
    while not wide and len(columns) > len(KEPT) and _least(columns) > width:
        columns.pop("image", None) or columns.popitem()
    below = [] if wide else [Text(f"{row.id}: {reason}") for row in rows for reason in _reasons(row)]
    if not wide and _least(columns) > width:
        listed = [Text.assemble(f"{row.id}: expected {row.expect}; ", _verdict(row)) for row in rows]
        return Group(*listed, *below, Text(_summary(report)))
    grid = Table(box=box.SIMPLE_HEAD, expand=wide, pad_edge=False)
    for title in columns:
        grid.add_column(
            title,
            justify="right" if title.endswith(" s") else "left",
            no_wrap=title not in WRAPPED,
            overflow="fold",
            ratio=1 if title == "root failure: evidence" else None,
        )
    for line in zip(*columns.values(), strict=True):
        grid.add_row(*line)
    return Group(grid, *below, Text(_summary(report)))


def _least(columns: Mapping[str, Sequence[Text]]) -> int:
    """Return the width of the narrowest table that breaks no word, and no line of a column that is not to wrap."""
    total = 0
    for title, cells in columns.items():
        texts = [title, *(cell.plain for cell in cells)]
        total += max(len(part) for text in texts for part in (text.split() if title in WRAPPED else [text])) + GAP
    return total


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
