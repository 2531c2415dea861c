"""The gate before publishing: whose certificate still answers today's questions about an image that assay built."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import publish_samples as samples
import pytest

from assay import checks, releases
from assay.certificate import RowEvidence, make_certificate
from assay.findings import Level
from assay.publish.gate import Candidate, Policy, objection

IMAGE = "sha256:" + "1" * 64


def policy(**changes: Any) -> Policy:
    now = Policy(
        level=Level.IMAGE,
        key=None,
        checks_digest=checks.digest(),
        releases_digest=releases.load().digest,
        required=checks.required,
    )
    return replace(now, **changes)


def objection_to(evidence: RowEvidence, **changes: Any) -> str:
    candidate = Candidate(row=samples.row(), certificate=make_certificate(evidence))
    return objection(candidate, lambda name: name, policy(**changes))


def test_a_certificate_of_today_may_be_published():
    assert objection_to(samples.evidence(samples.row(), IMAGE)) == ""


def test_a_row_whose_own_files_changed_may_not_be_published():
    evidence = samples.evidence(samples.row(dockerfile="own.dockerfile", content="1" * 64), IMAGE)
    now = samples.row(dockerfile="own.dockerfile", content="2" * 64)
    why = objection(Candidate(row=now, certificate=make_certificate(evidence)), lambda name: name, policy())
    assert why == "the row's content changed since it was certified"


@pytest.mark.parametrize("asked", Level)
@pytest.mark.parametrize("made", Level)
def test_each_row_asks_for_its_own_level_unless_publishing_asks_for_another(made: Level, asked: Level):
    """A row may ask for more than [publish] does: a certificate of level image must not publish it."""
    row = samples.row(required_level=asked)
    candidate = Candidate(row=row, certificate=make_certificate(samples.evidence(row, IMAGE, level=made)))

    def why(level: Level | None) -> str:
        return objection(candidate, lambda name: name, policy(level=level))

    short = "it is certified at level image, the matrix asks for gpu"
    assert why(None) == (short if (made, asked) == (Level.IMAGE, Level.GPU) else "")
    assert why(Level.IMAGE) == ""
    assert why(Level.GPU) == (short if made is Level.IMAGE else "")


def test_level_gpu_asks_for_a_gpu_that_the_row_is_for():
    evidence = samples.evidence(samples.row(), IMAGE, level=Level.GPU)
    assert objection_to(evidence, level=Level.GPU) == ""
    other = replace(
        evidence,
        findings=tuple(
            replace(finding, data={"of_row": False}) if finding.check == "gpu.matches-row" else finding
            for finding in evidence.findings
        ),
    )
    why = objection_to(other, level=Level.GPU)
    assert why.startswith("it was judged on NVIDIA H100, and the row is for A100: judge it on one of these")
    assert objection_to(other, level=Level.IMAGE) == ""


@pytest.mark.parametrize(
    ("evidence", "now", "why"),
    [
        ({}, {"checks_digest": "0" * 64}, "the checks changed since it was certified"),
        ({}, {"releases_digest": "0" * 64}, "the releases table changed since it was certified"),
        ({}, {"required": lambda row, level: ("torch.import", "new.check")}, "lacks the pass of new.check"),
        ({"dockerfile_digest": None, "base_digest": None}, {}, "nobody knows what it was built from"),
    ],
)
def test_what_was_not_asked_or_not_built_here_is_kept_back(evidence, now, why):
    assert why in objection_to(replace(samples.evidence(samples.row(), IMAGE), **evidence), **now)
