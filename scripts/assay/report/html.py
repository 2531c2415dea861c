"""The report as one HTML page that needs nothing from elsewhere but the sample pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from assay.report.model import Report
from assay.report.table import human_bytes, one_line, telling_line


def html(
    report: Report,
    *,
    samples: Mapping[str, str] | None = None,
    claims: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page.

    samples: row id to the address of its picture, relative to the page.
    claims: lines of `assay claims` with `claim`, `verdict`, `measured` and `how`.
    """
    environment = Environment(
        loader=PackageLoader("assay.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
    )
    environment.filters["human_bytes"] = human_bytes
    environment.filters["one_line"] = one_line
    environment.globals["telling_line"] = telling_line
    page = environment.get_template("report.html.j2")
    return page.render(report=report, samples=dict(samples or {}), claims=list(claims))
