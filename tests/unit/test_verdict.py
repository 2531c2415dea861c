"""Every way in which a row can come out, and properties that hold for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import ExitCode
from assay.findings import Finding, Status
from assay.matrix.row import Reason, Row
from assay.verdict import Verdict, exit_code, judge

CHECKS = ("torch.import", "libraries.resolved", "toolkit.matches-torch", "flash-attn.import")
SYMBOL = "undefined symbol: __nvJitLinkAddData_12_1"

CERTIFY = Row(id="cu121", expect="certify")
REJECT = Row(
    id="cu120-on-library-path",
    expect="reject",
    because=(
        Reason(check="torch.import", matches=SYMBOL),
        Reason(check="libraries.resolved", matches="__nvJitLinkAddData_12_1"),
    ),
)
REJECT_BUILD = Row(
    id="cu118-compile",
    expect="reject",
    because=(Reason(check="build.flash-attn", matches="The detected CUDA version .* mismatches"),),
)


def finding(check: str, status: str = "passed", evidence: str = "", measured: str = "") -> Finding:
    return Finding(check=check, status=Status(status), evidence=evidence, measured=measured)


def findings(**other: Finding | None) -> list[Finding]:
    """All checks passed, but for the ones given (their id with `_` for `.` and `-`; None: no such finding)."""
    answers = {check: finding(check) for check in CHECKS}
    for check in CHECKS:
        name = check.replace(".", "_").replace("-", "_")
        if name in other:
            answer = other.pop(name)
            if answer is None:
                del answers[check]
            else:
                answers[check] = answer
    assert not other
    return list(answers.values())


IMPORT_FAILED = finding("torch.import", "failed", f"Traceback:\nImportError: libcusparse.so.12: {SYMBOL}, version 12")
UNRESOLVED = finding("libraries.resolved", "failed", "libcusparse.so.12 needs __nvJitLinkAddData_12_1")
AS_NAMED = findings(
    torch_import=IMPORT_FAILED,
    libraries_resolved=UNRESOLVED,
    toolkit_matches_torch=finding("toolkit.matches-torch", "blocked"),
    flash_attn_import=finding("flash-attn.import", "blocked"),
)


def test_everything_passed_is_certified():
    verdict = judge(CERTIFY, findings(), CHECKS)
    assert verdict == Verdict(verdict="certified", as_expected=True, why="all 4 required checks passed")


def test_a_check_that_is_not_required_may_be_left_out():
    asks_for_gpu = finding("bf16.tensor-cores", "not-run", measured="no GPU")
    assert judge(CERTIFY, [*findings(), asks_for_gpu], CHECKS).verdict == "certified"


def test_a_failure_of_a_check_that_is_not_required_rejects_all_the_same():
    verdict = judge(CERTIFY, [*findings(), finding("bf16.tensor-cores", "failed", "3.1 ms")], CHECKS)
    assert (verdict.verdict, verdict.as_expected) == ("rejected", False)


@pytest.mark.parametrize("status", ["error", "not-run", "blocked", None])
def test_no_certificate_without_every_required_pass(status):
    answer = None if status is None else finding("torch.import", status, "killed after 60 s")
    verdict = judge(CERTIFY, findings(torch_import=answer), CHECKS)
    assert (verdict.verdict, verdict.as_expected, verdict.complete) == ("inconclusive", False, False)
    assert "torch.import" in verdict.why


def test_a_broken_check_forbids_a_certificate_even_where_it_is_not_required():
    verdict = judge(CERTIFY, [*findings(), finding("files.unmodified", "error", "MemoryError")], CHECKS)
    assert verdict.verdict == "inconclusive"
    assert verdict.why == "files.unmodified broke: MemoryError"


@pytest.mark.parametrize("given_findings", [[], [finding("torch.import")]])
def test_nothing_required_proves_nothing(given_findings):
    assert judge(CERTIFY, given_findings, ()).verdict == "inconclusive"


def test_two_answers_of_one_check_count_as_the_worse():
    for status, verdict in (("failed", "rejected"), ("error", "inconclusive"), ("not-run", "inconclusive")):
        assert judge(CERTIFY, [*findings(), finding("torch.import", status)], CHECKS).verdict == verdict


def test_a_row_to_be_certified_that_fails_is_rejected_and_says_where():
    verdict = judge(CERTIFY, AS_NAMED, CHECKS)
    assert (verdict.verdict, verdict.as_expected, verdict.complete) == ("rejected", False, True)
    assert verdict.root_failures == (IMPORT_FAILED, UNRESOLVED)
    assert verdict.why.startswith("torch.import: ImportError: libcusparse.so.12")


def test_trouble_beside_a_failure_does_not_save_a_row_to_be_certified():
    verdict = judge(CERTIFY, [*AS_NAMED, finding("sample.generate", "error")], CHECKS)
    assert (verdict.verdict, verdict.complete) == ("rejected", True)


def test_named_failures_with_their_evidence_are_as_expected():
    verdict = judge(REJECT, AS_NAMED, CHECKS)
    assert (verdict.verdict, verdict.as_expected) == ("rejected", True)
    assert verdict.why == (
        f"torch.import: ImportError: libcusparse.so.12: {SYMBOL}, version 12; "
        "libraries.resolved: libcusparse.so.12 needs __nvJitLinkAddData_12_1"
    )


def test_what_was_measured_is_evidence_too():
    row = replace(REJECT, because=(Reason(check="toolkit.matches-torch", matches=r"\b12\.0\b"),))
    failed = finding("toolkit.matches-torch", "failed", "see nvcc --version", measured="toolkit 12.0.1")
    assert judge(row, findings(toolkit_matches_torch=failed), CHECKS).as_expected


def test_unexpected_pass():
    verdict = judge(REJECT, findings(), CHECKS)
    assert (verdict.verdict, verdict.as_expected, verdict.complete) == ("certified", False, True)
    assert "torch.import, libraries.resolved should have failed" in verdict.why


def test_right_check_with_wrong_evidence():
    other = finding("torch.import", "failed", "ModuleNotFoundError: No module named 'torch'")
    verdict = judge(REJECT, [other, *AS_NAMED[1:]], CHECKS)
    assert (verdict.verdict, verdict.as_expected, verdict.complete) == ("rejected", False, True)
    assert verdict.why == f"torch.import: {other.evidence}: this does not match {SYMBOL!r}"


def test_wrong_check():
    wrong = findings(flash_attn_import=finding("flash-attn.import", "failed", SYMBOL))
    verdict = judge(REJECT, wrong, CHECKS)
    assert (verdict.verdict, verdict.as_expected) == ("rejected", False)
    assert verdict.why == f"flash-attn.import: {SYMBOL}, which the row does not name"


def test_one_failure_more_than_named():
    more = finding("packages.consistent", "failed", "numpy 2.0 is installed, 1.26 is asked for")
    verdict = judge(REJECT, [*AS_NAMED, more], CHECKS)
    assert (verdict.verdict, verdict.as_expected) == ("rejected", False)
    assert "packages.consistent" in verdict.why


def test_one_failure_fewer_than_named():
    verdict = judge(REJECT, findings(torch_import=IMPORT_FAILED), CHECKS)
    assert (verdict.verdict, verdict.as_expected, verdict.complete) == ("rejected", False, True)
    assert verdict.why == "libraries.resolved should have failed too"


@pytest.mark.parametrize("status", ["error", "not-run", None])
@pytest.mark.parametrize("check", ["libraries.resolved", "flash-attn.import"])
def test_another_cause_cannot_be_ruled_out_while_an_answer_is_missing(check, status):
    rest = [answer for answer in AS_NAMED if answer.check != check]
    if status is not None:
        rest.append(finding(check, status, "timed out"))
    verdict = judge(REJECT, rest, CHECKS)
    assert (verdict.verdict, verdict.as_expected, verdict.complete) == ("rejected", False, False)
    assert exit_code([verdict]) is ExitCode.INCONCLUSIVE


def test_a_contradiction_is_final_whatever_else_is_missing():
    more = finding("packages.consistent", "failed", "numpy 2.0")
    verdict = judge(REJECT, [IMPORT_FAILED, more, finding("libraries.resolved", "error")], CHECKS)
    assert verdict.complete
    assert exit_code([verdict]) is ExitCode.NOT_AS_EXPECTED


def test_a_build_that_fails_as_named_is_a_rejection():
    failed = finding("build.flash-attn", "failed", "line\nThe detected CUDA version (11.8) mismatches the version\nend")
    verdict = judge(REJECT_BUILD, [failed], CHECKS)
    assert (verdict.verdict, verdict.as_expected) == ("rejected", True)
    assert verdict.why == "build.flash-attn: The detected CUDA version (11.8) mismatches the version"


@pytest.mark.parametrize("row", [CERTIFY, REJECT, REJECT_BUILD])
@pytest.mark.parametrize("part", ["base", "python", "torch", "flash-attn", "runtime", "toolkit", "files"])
@pytest.mark.parametrize(
    "trouble", ["Could not resolve host", "No space left on device", "Hash mismatch", "Connection reset by peer"]
)
def test_a_build_that_fails_for_another_reason_is_inconclusive(row, part, trouble):
    verdict = judge(row, [finding(f"build.{part}", "failed", trouble)], CHECKS)
    assert (verdict.verdict, verdict.as_expected, verdict.complete) == ("inconclusive", False, False)
    assert trouble in verdict.why
    assert exit_code([verdict]) is ExitCode.INCONCLUSIVE


@pytest.mark.parametrize(
    "last_word",
    [
        'process "/bin/sh -c nvcc.py 11.8 --to /opt" did not complete successfully: exit code: 1',
        "The command '/bin/sh -c nvcc.py 11.8 --to /opt' returned a non-zero code: 1",
        # Killed, there is no exit code.
        'process "/bin/sh -c nvcc.py 11.8 --to /opt" did not complete successfully: signal: killed',
        "executor failed running [/bin/sh -c set -e\nnvcc.py 11.8 --to /opt]: signal: killed",
        "executor failed running [/bin/sh -c set -e\nnvcc.py 11.8 --to /opt]: exit code: 137",
    ],
)
def test_the_command_of_a_failed_step_is_no_evidence(last_word):
    row = replace(REJECT_BUILD, because=(Reason(check="build.flash-attn", matches=r"\b11\.8\b"),))
    down = finding("build.flash-attn", "failed", f"index unreachable\n{last_word}", f"exit of this step: {last_word}")
    assert (judge(row, [down], CHECKS).verdict, judge(row, [down], CHECKS).complete) == ("inconclusive", False)
    printed = replace(down, evidence=f"The detected CUDA version (11.8) mismatches\n{last_word}")
    assert judge(row, [printed], CHECKS).as_expected


def test_a_named_build_failure_beside_another_failure_satisfies_nothing():
    named = finding("build.flash-attn", "failed", "The detected CUDA version (11.8) mismatches")
    verdict = judge(REJECT_BUILD, [named, finding("build.torch", "failed", "disk full")], CHECKS)
    assert verdict.verdict == "inconclusive"


def test_a_build_that_broke_or_gave_no_finding_is_inconclusive():
    assert judge(REJECT_BUILD, [finding("build.flash-attn", "error", "engine died")], CHECKS).verdict == "inconclusive"
    assert judge(REJECT_BUILD, [], CHECKS).verdict == "inconclusive"


def test_an_image_that_should_not_have_been_built():
    verdict = judge(REJECT_BUILD, findings(), CHECKS)
    assert (verdict.verdict, verdict.as_expected) == ("certified", False)


def test_a_long_line_of_evidence_is_cut():
    verdict = judge(CERTIFY, findings(torch_import=finding("torch.import", "failed", "x" * 1000)), CHECKS)
    assert len(verdict.why) < 200
    assert "\n" not in verdict.why


GOOD = Verdict(verdict="certified", as_expected=True)
WRONG = Verdict(verdict="rejected", as_expected=False)
OPEN = Verdict(verdict="inconclusive", as_expected=False, complete=False)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], 3),
        ([GOOD], 0),
        ([GOOD, GOOD], 0),
        ([GOOD, WRONG], 1),
        ([GOOD, OPEN], 3),
        ([OPEN, WRONG, GOOD], 1),
    ],
)
def test_exit_code(verdicts, code):
    assert exit_code(verdicts) == code


# --- properties ---

statuses = st.sampled_from([status.value for status in Status])
texts = st.sampled_from(["", SYMBOL, "__nvJitLinkAddData_12_1", "The detected CUDA version (11) mismatches", "other"])
any_finding = st.builds(
    finding, st.sampled_from([*CHECKS, "build.torch", "build.flash-attn", "sample.parity"]), statuses, texts, texts
)
any_findings = st.lists(any_finding, max_size=8)
any_row = st.sampled_from([CERTIFY, REJECT, REJECT_BUILD])
any_required = st.sets(st.sampled_from(CHECKS))


@given(any_row, any_findings, any_required)
def test_never_certified_without_every_required_pass(row, answers, required):
    verdict = judge(row, answers, required)
    if verdict.verdict == "certified":
        assert required
        assert required <= {answer.check for answer in answers if answer.status is Status.PASSED}
        assert not {answer.status for answer in answers} & {Status.FAILED, Status.ERROR, Status.BLOCKED}


@given(any_row, any_findings, any_required)
def test_rejected_only_with_a_failure_and_as_expected_only_with_the_named_ones(row, answers, required):
    verdict = judge(row, answers, required)
    failed = {answer.check for answer in answers if answer.status is Status.FAILED}
    assert bool(failed) or verdict.verdict != "rejected"
    if verdict.verdict == "rejected" and verdict.as_expected:
        assert row.expect == "reject"
        assert failed == {reason.check for reason in row.because}
        built = not any(check.startswith("build.") for check in failed)
        if built:
            answered = {a.check for a in answers if a.status in (Status.PASSED, Status.FAILED, Status.BLOCKED)}
            assert required <= answered


@given(any_row, any_findings, any_required)
def test_as_expected_is_what_the_row_says_and_an_open_verdict_is_never_as_expected(row, answers, required):
    verdict = judge(row, answers, required)
    assert not (verdict.as_expected and not verdict.complete)
    assert not (verdict.verdict == "inconclusive" and (verdict.as_expected or verdict.complete))
    if verdict.as_expected:
        assert verdict.verdict == {"certify": "certified", "reject": "rejected"}[row.expect]
    assert verdict.why
    assert "\n" not in verdict.why


@given(any_row, any_findings, any_required, st.randoms())
def test_the_order_of_findings_changes_nothing_but_the_wording(row, answers, required, random):
    shuffled = list(answers)
    random.shuffle(shuffled)
    one, other = judge(row, answers, required), judge(row, shuffled, required)
    assert (one.verdict, one.as_expected, one.complete) == (other.verdict, other.as_expected, other.complete)


@given(any_findings, any_required)
def test_more_evidence_of_trouble_never_makes_a_certificate(answers, required):
    for status in ("failed", "error", "blocked"):
        worse = [*answers, finding("sample.parity", status)]
        assert judge(CERTIFY, worse, required).verdict != "certified"


def test_a_named_check_that_is_not_asked_at_this_level_leaves_the_row_open():
    speed = Reason(check="flash-attn.speed", matches="slower")
    for row, given_findings, verdict in (
        (replace(REJECT, because=(speed,)), findings(), "inconclusive"),
        (replace(REJECT, because=(*REJECT.because, speed)), AS_NAMED, "rejected"),
    ):
        judged = judge(row, given_findings, CHECKS)
        assert (judged.verdict, judged.as_expected, judged.complete) == (verdict, False, False)
        assert "flash-attn.speed, which should fail, is not asked at this level" in judged.why
        slower = finding("flash-attn.speed", "failed", "slower than SDPA")
        assert judge(row, [*given_findings, slower], [*CHECKS, "flash-attn.speed"]).as_expected
