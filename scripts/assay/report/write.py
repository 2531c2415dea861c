"""Put a report into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.files import write_atomically, write_json
from assay.report.html import html
from assay.report.junit import junit
from assay.report.model import Report, RowReport

ROW_FILES = ("Dockerfile", "build.log", "findings.json", "certificate.json", "sample.png")
"""What a run leaves in a row's folder for people to read, in the order in which it is made."""


def write(report: Report, out: Path, *, claims: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write `report.json`, `report.html` and `junit.xml` into `out`, each whole or not at all."""
    files = {row.id: row_files(row, out / row.id) for row in report.rows}
    write_json(out / "report.json", report.to_json())
    write_atomically(out / "report.html", html(report, files=files, claims=claims))
    write_atomically(out / "junit.xml", junit(report))


def row_files(row: RowReport, folder: Path) -> tuple[str, ...]:
    """Return which of a row's files are there and speak of this verdict.

    A row that could not be judged keeps the certificate of an earlier run, which may hold again, but not for this one.
    """
    foreign: set[str] = set()
    if row.verdict == "inconclusive" or not row.complete:
        foreign.add("certificate.json")
    if not row.judged:
        foreign |= {"findings.json", "sample.png"}
    return tuple(name for name in ROW_FILES if name not in foreign and (folder / name).is_file())
