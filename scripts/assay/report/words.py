"""How a report speaks of its rows: the words that its page, its table and the lines of a run share."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

from assay.findings import Finding, Level, Status, gpus_not_judged
from assay.report.model import Report, RowReport

Outcome = Literal["as-expected", "unexpected", "open"]
"""How a row stands to its expectation. `open`: not as expected, but another run could still bring it out so."""

OUTCOME_WORDS: dict[Outcome, str] = {
    "as-expected": "as expected",
    "unexpected": "not as expected",
    "open": "not as expected yet",
}
# A rejection can be just what the matrix asks for, so the colour tells the outcome, never the verdict.
OUTCOME_STYLE: dict[Outcome, str] = {"as-expected": "bold green", "unexpected": "bold red", "open": "bold yellow"}

GPU_ACCESS = {
    "runtime": "NVIDIA's container runtime",
    "cdi": "CDI",
    "devices": "plain devices and the driver's libraries",
}


def outcome(row: RowReport) -> Outcome:
    """Return how a row stands to its expectation."""
    if row.as_expected:
        return "as-expected"
    return "unexpected" if row.complete else "open"


def amiss(report: Report) -> dict[Outcome, list[str]]:
    """Return the ids of the rows that did not come out as expected, what is settled first; nothing where all did."""
    order: tuple[Outcome, ...] = ("unexpected", "open")
    found = {wanted: [row.id for row in report.rows if outcome(row) == wanted] for wanted in order}
    return {wanted: ids for wanted, ids in found.items() if ids}


def score(report: Report) -> str:
    """Return how many rows came out as expected: `6 of 6 rows as expected`."""
    good = sum(row.as_expected for row in report.rows)
    return f"{good} of {len(report.rows)} rows as expected"


def levels(report: Report) -> str:
    """Return the level that rows were judged at: one for all, or how many at which (a merged report may hold both)."""
    counts = Counter(row.level for row in report.rows if row.judged)
    if len(counts) > 1:
        return f"{counts[Level.GPU]} judged at level gpu, {counts[Level.IMAGE]} at level image"
    return f"level {next(iter(counts), report.level).value}"


def levels_differ(report: Report) -> bool:
    """Say whether the level has to be told row by row."""
    return len({row.level for row in report.rows if row.judged}) > 1


def level(row: RowReport) -> str:
    """Return the level that a row was judged at, `none` where it was not judged."""
    return row.level.value if row.judged else "none"


def gpu(row: RowReport) -> str:
    """Return the GPU that a row was judged on, its driver, and how the container got it; `none` without one.

    Behind it, those of the row's GPUs of which that says nothing.
    """
    if not row.gpu:
        return "none"
    access = row.gpu.get("access")  # reports made before this was kept have none
    way = f", through {GPU_ACCESS.get(access, access)}" if access else ""
    others = gpus_not_judged(row.findings)
    aside = f"; not judged: {', '.join(others)}" if others else ""
    return f"{row.gpu.get('name')} ({row.gpu.get('uuid')}), driver {row.gpu.get('driver')}{way}{aside}"


def short_id(row: RowReport) -> str:
    """Return as much of the image's id as people compare, `none` where there is no image."""
    return row.image.id.removeprefix("sha256:")[:12] if row.image else "none"


def status(row: RowReport, finding: Finding) -> str:
    """Return a finding's status in words: that a failure was expected is said only of rows that came out as expected.

    Of a row that did not, nobody can say which of its failures are the ones that the matrix means.
    """
    named = any(reason["check"] == finding.check for reason in row.because)
    if finding.status is Status.FAILED and row.as_expected and named:
        return "failed, as expected"
    return finding.status.value


def telling_line(row: RowReport, failure: Finding) -> str:
    """Return the line of a failure's evidence that the row expects, or all of it where none fits."""
    lines = [*failure.evidence.splitlines(), *failure.measured.splitlines()]
    patterns = [reason["matches"] for reason in row.because if reason["check"] == failure.check]
    fitting = (line for line in lines for pattern in patterns if _found(pattern, line))
    return next(fitting, failure.evidence or failure.measured)


def _found(pattern: str, line: str) -> bool:
    try:
        return re.search(pattern, line) is not None
    except re.error:  # a report can come from anywhere; the matrix refuses such a pattern
        return False


def one_line(text: str, limit: int = 200) -> str:
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


def storage(report: Report) -> str:
    """Return what the images take on disk, empty where nobody asked the engine, or no row has one."""
    if not report.storage or not report.storage["total"]:
        return ""
    total, shared = (human_bytes(report.storage[key]) for key in ("total", "shared"))
    return f"images take {total} ({shared} saved by sharing layers)"
