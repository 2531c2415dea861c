"""The gate before publishing: whose certificate still answers today's questions about an image that assay built."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import publish_samples as samples
import pytest

from assay import checks, matrix, releases
from assay.certificate import RowEvidence, make_certificate
from assay.findings import Level
from assay.matrix.row import Row
from assay.paths import docker_dir
from assay.publish.gate import Candidate, Policy, objection

IMAGE = "sha256:" + "1" * 64


def policy(**changes: Any) -> Policy:
    now = Policy(
        level=Level.IMAGE,
        key=None,
        checks_digest=checks.digest(),
        releases_digest=releases.load().digest,
        required=checks.required,
        capability=lambda name: releases.load().gpu(name).capability,
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


def judged_on(row: Row, capability: str) -> RowEvidence:
    evidence = samples.evidence(row, IMAGE, level=Level.GPU)
    return replace(
        evidence,
        findings=tuple(
            replace(finding, data={"capability": capability}) if finding.check == "gpu.matches-row" else finding
            for finding in evidence.findings
        ),
    )


@pytest.mark.parametrize(
    ("gpus", "capability", "others"),
    [
        (("A100",), "8.0", ""),
        (("H100", "H200"), "9.0", ""),  # one compute capability, one machine code
        (("L4", "L40S"), "8.9", ""),  # on a GPU that is neither, perhaps
        (("A100",), "9.0", "A100 (8.0): judge it on a GPU like A100"),
        (("L4", "L40S"), "9.0", "L4 (8.9), L40S (8.9): judge it on a GPU like L4"),
        (("A100", "H100"), "9.0", "A100 (8.0): make a row for each compute capability"),
        (("A100", "A10", "L4"), "8.6", "A100 (8.0), L4 (8.9): make a row for each compute capability"),
        (("A100", "A10"), "9.0", "A100 (8.0), A10 (8.6): make a row for each compute capability"),
        ((), "9.0", ""),
    ],
)
def test_level_gpu_promises_nothing_of_gpus_that_the_row_was_not_judged_on(gpus, capability, others):
    row = samples.row(gpus=gpus)
    candidate = Candidate(row=row, certificate=make_certificate(judged_on(row, capability)))
    why = objection(candidate, lambda name: name, policy(level=Level.GPU))
    told = f"it was judged on NVIDIA A100-SXM4-40GB ({capability}), which says nothing of {others}"
    assert why == (f"{told}, or ask for level image (`required-level`)" if others else "")
    assert objection(candidate, lambda name: name, policy(level=Level.IMAGE)) == ""


@pytest.mark.parametrize("matrix_file", ["matrix.toml", "matrix.gpu-host.toml", "examples/matrix.nvidia-cuda.toml"])
def test_the_rows_of_this_repository_can_be_published_at_the_level_that_they_ask_for(matrix_file):
    for row in matrix.load(docker_dir().parent / matrix_file).rows:
        if row.expect == "certify":
            capabilities = {releases.load().gpu(name).capability for name in row.gpus}
            assert row.required_level is Level.IMAGE or len(capabilities) == 1


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
