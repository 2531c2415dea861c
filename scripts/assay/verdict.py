"""Judge a row by its findings. Pure: the same findings give the same verdict, whoever gathered them.

What counts, in the order in which it is decided:

1. A failed build (`build.<part>`) says something about the combination only where the row names that very part and the
   step's output matches; then the row is rejected. Any other failed build is inconclusive: a mirror that is down fails
   a build too.
2. At least one root failure: rejected.
3. Every required check passed, and no check is in `error` or `blocked`: certified. Nothing required proves nothing.
4. Anything else: inconclusive.

A `reject` row is as expected when its root failures are exactly the named ones, each with matching evidence, AND every
required check answered (passed, failed, or blocked by a failure). With a check in `error`, not run or missing, the row
is still rejected, since no answer of that check could undo a failure; but it could have been one more root failure, so
nobody can say that the row fails for its reasons only. It is then not as expected, and, where nothing contradicts the
expectation yet, `complete` is False and the exit code asks for another run instead of calling the matrix wrong. The
same holds where the row names a check that is not asked at this level: nobody can say that it did not fail.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from assay.errors import ExitCode
from assay.findings import Finding, Status, root_failures
from assay.matrix.row import Reason, Row

VerdictName = Literal["certified", "rejected", "inconclusive"]

# How BuildKit and the classic builder end the story of a command that failed, after the command itself.
_LAST_WORD = re.compile(
    r"^.*(?:exit code|returned a non-zero code): \d+\s*$"
    # A command that was killed has no exit code. What it was may go on over several lines; nothing comes after it.
    r"|^executor failed running \[(?s:.*)\Z|^process \".*\" did not complete.*$",
    re.MULTILINE,
)
_WIDTH = 160  # characters of evidence in `why`: about what one table line can show


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a row's findings amount to.

    as_expected: the row came out as the matrix says, for the reasons that it names and no other.
    root_failures: the findings that failed themselves.
    why: one line for the table: what settled it.
    complete: False when a further run could still bring the row out as expected, because an answer is missing.
    """

    verdict: VerdictName
    as_expected: bool
    root_failures: tuple[Finding, ...] = ()
    why: str = ""
    complete: bool = True


def judge(row: Row, findings: Sequence[Finding], required: Collection[str]) -> Verdict:
    """Return the verdict of a row at the level whose required checks are given.

    findings: what is known of the row; `build.<part>` alone where its image could not be built.
    required: ids of the checks that must have passed for a certificate at this level.
    """
    failures = root_failures(findings)
    open_questions = _unanswered(findings, required) + _unasked(row, findings, required)
    if any(failure.check.startswith("build.") for failure in failures):
        return _judge_build(row, failures)
    if failures:
        return _judge_rejected(row, failures, open_questions)
    if unproved := open_questions or _unproved(findings, required):
        return Verdict(verdict="inconclusive", as_expected=False, why=unproved[0], complete=False)
    if row.expect == "reject":
        named = ", ".join(reason.check for reason in row.because)
        why = f"all {len(required)} required checks passed, but {named} should have failed"
        return Verdict(verdict="certified", as_expected=False, why=why)
    return Verdict(verdict="certified", as_expected=True, why=f"all {len(required)} required checks passed")


def exit_code(verdicts: Iterable[Verdict]) -> ExitCode:
    """Return what the process tells its caller.

    A row that came out wrong (1) outweighs an inconclusive one (3), which outweighs rows as expected (0): the first is
    known and no further run mends it, while 3 means "run again". No row at all proves nothing: 3.
    """
    judged = list(verdicts)
    if any(not verdict.as_expected and verdict.complete for verdict in judged):
        return ExitCode.NOT_AS_EXPECTED
    if not judged or any(not verdict.as_expected for verdict in judged):
        return ExitCode.INCONCLUSIVE
    return ExitCode.AS_EXPECTED


def _judge_build(row: Row, failures: tuple[Finding, ...]) -> Verdict:
    """A failed build rejects the row only where it is precisely the failure that the row names."""
    if not _contradictions(row, failures) and not _still_due(row, failures):
        why = "; ".join(_in_one_line(failure, _reason(row, failure)) for failure in failures)
        return Verdict(verdict="rejected", as_expected=True, root_failures=failures, why=why)
    failure = next(failure for failure in failures if failure.check.startswith("build."))
    unnamed = ", which is not what the row names" if row.because else ""
    why = f"the build failed{unnamed}: {_in_one_line(failure, None)}"
    return Verdict(verdict="inconclusive", as_expected=False, root_failures=failures, why=why, complete=False)


def _judge_rejected(row: Row, failures: tuple[Finding, ...], open_questions: Sequence[str]) -> Verdict:
    """Something failed in the image: say whether it is what the row names, all of it, and nothing else."""
    contradictions = _contradictions(row, failures)
    due = _still_due(row, failures)
    if contradictions or (due and not open_questions):
        why = (contradictions or due)[0]
        return Verdict(verdict="rejected", as_expected=False, root_failures=failures, why=why)
    if open_questions:
        why = f"fails as named so far, but {open_questions[0]}: another cause cannot be ruled out"
        return Verdict(verdict="rejected", as_expected=False, root_failures=failures, why=why, complete=False)
    why = "; ".join(_in_one_line(failure, _reason(row, failure)) for failure in failures)
    return Verdict(verdict="rejected", as_expected=True, root_failures=failures, why=why)


def _contradictions(row: Row, failures: Iterable[Finding]) -> list[str]:
    """Return what is wrong with the failures there are: ones that the row does not name, ones with other evidence."""
    found = []
    for failure in failures:
        reason = _reason(row, failure)
        if reason is None:
            named = "" if row.expect == "certify" else ", which the row does not name"
            found.append(f"{_in_one_line(failure, None)}{named}")
        elif _evidence_match(reason, failure) is None:
            found.append(f"{_in_one_line(failure, None)}: this does not match {reason.matches!r}")
    return found


def _still_due(row: Row, failures: Iterable[Finding]) -> list[str]:
    """Return the named failures that did not come."""
    failed = {failure.check for failure in failures}
    return [f"{reason.check} should have failed too" for reason in row.because if reason.check not in failed]


def _unanswered(findings: Sequence[Finding], required: Collection[str]) -> list[str]:
    """Return why the findings leave a question open: a check that broke, or a required one without an answer.

    A check that is not required may be not-run (it asks for a GPU, say), but if it was run and broke, that is trouble.
    """
    by_check: dict[str, set[Status]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, set()).add(finding.status)
    broken = [
        f"{finding.check} broke: {_in_one_line(finding, None, name=False)}"
        for finding in findings
        if finding.status is Status.ERROR
    ]
    silent = [f"{check} was not run" for check in required if by_check.get(check, {Status.NOT_RUN}) & {Status.NOT_RUN}]
    return broken + silent


def _unasked(row: Row, findings: Sequence[Finding], required: Collection[str]) -> list[str]:
    """Return the failures that a row names and that nobody asked about: a check of level gpu, without a GPU."""
    asked = set(required) | {finding.check for finding in findings}
    return [
        f"{reason.check}, which should fail, is not asked at this level"
        for reason in row.because
        if reason.check not in asked and not reason.check.startswith("build.")
    ]


def _unproved(findings: Sequence[Finding], required: Collection[str]) -> list[str]:
    """Return what stands between findings without a failure and a certificate: nothing less than `passed` counts."""
    if not required:
        return ["no check is required at this level, so nothing is proved"]
    passed = {finding.check for finding in findings if finding.status is Status.PASSED}
    stuck = [finding.check for finding in findings if finding.status is Status.BLOCKED]
    return [f"{check} is blocked, though no check failed" for check in stuck] + [
        f"{check} did not pass" for check in required if check not in passed
    ]


def _reason(row: Row, failure: Finding) -> Reason | None:
    """Return the row's reason that names this failure's check. A row that is to be certified has none."""
    if row.expect != "reject":
        return None
    return next((reason for reason in row.because if reason.check == failure.check), None)


def _evidence_match(reason: Reason, failure: Finding) -> re.Match[str] | None:
    """Search what the check printed, and what it measured, for what the row names.

    Of a build only what the failed step printed counts. The engine's last word and what was measured repeat the step's
    command, in which a pattern would find the versions that the row asked for, whatever went wrong.
    """
    if failure.check.startswith("build."):
        return re.search(reason.matches, _LAST_WORD.sub("", failure.evidence))
    return re.search(reason.matches, failure.evidence) or re.search(reason.matches, failure.measured)


def _in_one_line(finding: Finding, reason: Reason | None, *, name: bool = True) -> str:
    """Return `check: text`: the line that the reason matches, else what was measured, else the last line printed."""
    text = ""
    if reason is not None and (match := _evidence_match(reason, finding)):
        start = match.string.rfind("\n", 0, match.start()) + 1
        end = match.string.find("\n", match.end())
        text = match.string[start : end if end >= 0 else None]
    if not text:
        printed = [line for line in finding.evidence.splitlines() if line.strip()]
        text = finding.measured or (printed[-1] if printed else "it gave no reason")
    text = " ".join(text.split())
    if len(text) > _WIDTH:
        text = text[: _WIDTH - 3] + "..."
    return f"{finding.check}: {text}" if name else text
