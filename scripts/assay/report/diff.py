"""What changed between two reports."""

from __future__ import annotations

from dataclasses import dataclass

from assay.findings import Finding, Status
from assay.report import words
from assay.report.model import Report, RowReport

NOT_THERE = "not in the report"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference: in which row, in what (a check's id, `verdict`, `image`, ...), and both sides."""

    row: str
    subject: str
    before: str
    after: str


def diff(before: Report, after: Report, *, measured: bool = False) -> tuple[Change, ...]:
    """Return what changed from `before` to `after`: rows that came or went, verdicts, images, ingredients, findings.

    Times are left out: they differ in every run. So does what a check measures (speeds, the prompts it drew), and where
    it passed both times that is a change only if `measured` asks for it.
    """
    old = {row.id: row for row in before.rows}
    new = {row.id: row for row in after.rows}
    changes: list[Change] = []
    for row_id in [*old, *(row_id for row_id in new if row_id not in old)]:
        if row_id not in new:
            changes.append(Change(row=row_id, subject="row", before=old[row_id].verdict, after=NOT_THERE))
        elif row_id not in old:
            changes.append(Change(row=row_id, subject="row", before=NOT_THERE, after=new[row_id].verdict))
        else:
            changes.extend(_row_changes(old[row_id], new[row_id], measured=measured))
    return tuple(changes)


def _row_changes(old: RowReport, new: RowReport, *, measured: bool) -> list[Change]:
    pairs = {
        "expectation": (_expectation(old), _expectation(new)),
        "verdict": (old.verdict, new.verdict),
        "result": (words.OUTCOME_WORDS[words.outcome(old)], words.OUTCOME_WORDS[words.outcome(new)]),
        "level": (words.level(old), words.level(new)),
        "image": (_image(old), _image(new)),
        "gpu": (words.gpu(old), words.gpu(new)),
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
        answers = findings[0].get(check), findings[1].get(check)
        if measured or not all(answer and answer.status is Status.PASSED for answer in answers):
            pairs[check] = _finding(answers[0]), _finding(answers[1])
    return [
        Change(row=new.id, subject=subject, before=before, after=after)
        for subject, (before, after) in pairs.items()
        if before != after
    ]


def _expectation(row: RowReport) -> str:
    reasons = (f"{reason['check']} matching {reason['matches']}" for reason in row.because)
    return "; ".join([row.expect, *reasons])


def _image(row: RowReport) -> str:
    return row.image.id if row.image else "none"


def _ingredient(item: dict[str, object] | None) -> str:
    return "none" if item is None else f"{item.get('version')} sha256:{item.get('sha256')}"


def _finding(finding: Finding | None) -> str:
    return "no such finding" if finding is None else f"{finding.status.value}: {finding.measured}"
