"""Put a report into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.files import write_atomically, write_json
from assay.report.html import html
from assay.report.junit import junit
from assay.report.model import Report


def write(report: Report, out: Path, *, claims: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write `report.json`, `report.html` and `junit.xml` into `out`, each whole or not at all."""
    samples = {row.id: f"{row.id}/sample.png" for row in report.rows if (out / row.id / "sample.png").is_file()}
    write_json(out / "report.json", report.to_json())
    write_atomically(out / "report.html", html(report, samples=samples, claims=claims))
    write_atomically(out / "junit.xml", junit(report))
