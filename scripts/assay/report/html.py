"""The report as one HTML page that needs nothing from elsewhere; beside it lie the rows' own files that it links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from assay.report import words
from assay.report.model import Report

MARKS: dict[words.Outcome, str] = {"as-expected": "\N{CHECK MARK}", "unexpected": "\N{BALLOT X}", "open": "?"}


def html(
    report: Report,
    *,
    files: Mapping[str, Sequence[str]] | None = None,
    claims: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page.

    files: row id to the names of the files that lie in the row's folder beside the page and belong to this report.
    claims: lines of `assay claims` with `claim`, `verdict`, `measured` and `how`.
    """
    environment = Environment(
        loader=PackageLoader("assay.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["human_bytes"] = words.human_bytes
    environment.filters["one_line"] = words.one_line
    environment.globals.update(words=words, marks=MARKS, address=_address)
    page = environment.get_template("report.html.j2")
    return page.render(report=report, files=dict(files or {}), claims=list(claims))


def _address(row: str, name: str) -> str:
    """Return a file's address relative to the page; quoted, so that no row's id makes it any other kind of address."""
    return f"{quote(row, safe='')}/{quote(name, safe='')}"
