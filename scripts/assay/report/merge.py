"""One report from those of parallel jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from assay.errors import UsageError
from assay.findings import Level
from assay.report.model import Report, RowReport


def merge(parts: Sequence[tuple[str, Report]], matrix: Sequence[RowReport]) -> tuple[Report, tuple[str, ...]]:
    """Join reports of single rows, as parallel jobs write them, into one, in the order of the matrix.

    parts: each report with where it was read, for messages.
    matrix: every row of the matrix, as it is to be reported where no part holds it: a row that nobody judged must be
        seen in whatever is made of the report.

    Returns the report and the ids of the rows that no part holds. The level is `gpu` only if every row's is.
    Raises UsageError, naming all of it at once, when a row is in two parts, is not in the matrix, or was judged by
    other expectations than the matrix has now.
    """
    expected = {row.id: row for row in matrix}
    found: dict[str, RowReport] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    for source, part in parts:
        for row in part.rows:
            if row.id not in expected:
                problems.append(f"{source}: row {row.id!r} is not in the matrix; is it the right matrix file?")
            elif row.id in found:
                problems.append(f"{source}: row {row.id!r} is in {sources[row.id]} too; pass each row's report once")
            elif changed := _changed(row, expected[row.id]):
                problems.append(
                    f"{source}: row {row.id!r} was judged by another {changed} than the matrix has; run it again"
                )
            else:
                found[row.id], sources[row.id] = row, source
    if problems:
        raise UsageError("\n".join(problems))
    level = Level.GPU if found and all(row.level is Level.GPU for row in found.values()) else Level.IMAGE
    reports = [part for _, part in parts]
    merged = Report(
        level=level,
        rows=tuple(found.get(row.id) or replace(row, level=level) for row in matrix),
        started=min((report.started for report in reports if report.started), default=""),
        seconds=max((report.seconds for report in reports), default=0.0),
        engine="; ".join(_unique(report.engine for report in reports)),
        storage={},
    )
    return merged, tuple(row.id for row in matrix if row.id not in found)


def _changed(judged: RowReport, expected: RowReport) -> str:
    """Return which part of a row's expectation is another now; empty for none."""
    if judged.expect != expected.expect:
        return "`expect`"
    before, now = (sorted((one["check"], one["matches"]) for one in row.because) for row in (judged, expected))
    return "" if before == now else "`because`"


def _unique(words: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word]
