"""What changed between two reports."""

from __future__ import annotations

from dataclasses import dataclass

from assay.findings import Finding
from assay.report.model import Report, RowReport


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference: in which row, in what (a check's id, `verdict`, `image`, ...), and both sides."""

    row: str
    subject: str
    before: str
    after: str


def diff(before: Report, after: Report) -> tuple[Change, ...]:
    """Return what changed from `before` to `after`: rows that came or went, verdicts, images, ingredients, findings.

    Times are left out: they differ in every run.
    """
    old = {row.id: row for row in before.rows}
    new = {row.id: row for row in after.rows}
    changes: list[Change] = []
    for row_id in [*old, *(row_id for row_id in new if row_id not in old)]:
        if row_id not in new:
            changes.append(
                Change(
                    row=row_id,
                    subject="row",
                    before=old[row_id].verdict,
                    after="not in this report",
                )
            )
        elif row_id not in old:
            changes.append(
                Change(
                    row=row_id,
                    subject="row",
                    before="not in that report",
                    after=new[row_id].verdict,
                )
            )
        else:
            changes.extend(_row_changes(old[row_id], new[row_id]))
    return tuple(changes)


def _row_changes(old: RowReport, new: RowReport) -> list[Change]:
    pairs = {
        "expectation": (old.expect, new.expect),
        "verdict": (old.verdict, new.verdict),
        "level": (old.level.value, new.level.value),
        "image": (_image(old), _image(new)),
        "gpu": (_gpu(old), _gpu(new)),
    }
    ingredients = (
        {item["name"]: item for item in old.ingredients},
        {item["name"]: item for item in new.ingredients},
    )
    for name in sorted({*ingredients[0], *ingredients[1]}):
        pairs[f"ingredient {name}"] = (
            _ingredient(ingredients[0].get(name)),
            _ingredient(ingredients[1].get(name)),
        )
    findings = (
        {item.check: item for item in old.findings},
        {item.check: item for item in new.findings},
    )
    for check in dict.fromkeys([*findings[0], *findings[1]]):
        pairs[check] = _finding(findings[0].get(check)), _finding(findings[1].get(check))
    return [
        Change(row=new.id, subject=subject, before=before, after=after)
        for subject, (before, after) in pairs.items()
        if before != after
    ]


def _image(row: RowReport) -> str:
    return row.image.id if row.image else "none"


def _gpu(row: RowReport) -> str:
    return f"{row.gpu.get('name')}, driver {row.gpu.get('driver')}" if row.gpu else "none"


def _ingredient(item: dict[str, object] | None) -> str:
    return "none" if item is None else f"{item.get('version')} sha256:{item.get('sha256')}"


def _finding(finding: Finding | None) -> str:
    return "no such finding" if finding is None else f"{finding.status.value}: {finding.measured}"
