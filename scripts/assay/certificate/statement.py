"""The in-toto Statement v1 that says what was tested, with what result, on the evidence of what.

The predicate is in-toto's test-result v0.1. Our own evidence sits beside its fields under a name
that is a URI, as in-toto asks of extensions, so that any reader of test results understands the
result and may ignore the rest.

An image has two digests: that of its configuration, which the engine calls its id and which names
the unpacked content, and that of its registry manifest, which exists only after a push. A
certificate is about the first; what is published is the same statement about both, and because a
manifest contains its configuration's digest, anyone can check that they are one image.
"""

from __future__ import annotations

import hashlib
from typing import Any

from assay.certificate.evidence import RowEvidence, canonical_json, sha256_hex
from assay.errors import CertificateError
from assay.findings import Status

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
EVIDENCE = "urn:assay:evidence:v1"

_RESULTS = {"certified": "PASSED", "rejected": "FAILED"}


def subject(name: str, digest: str) -> dict[str, Any]:
    """Return one in-toto subject."""
    return {"name": name, "digest": {"sha256": sha256_hex(digest)}}


def statement(subjects: list[dict[str, Any]], predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """Return an in-toto Statement v1. Raises CertificateError when it would be about nothing."""
    if not subjects:
        raise CertificateError("a statement needs at least one subject")
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def test_result(evidence: RowEvidence) -> dict[str, Any]:
    """Return the statement of a row's verdict.

    Its subject is the image's configuration digest, or the Dockerfile where the build failed and
    there is no image. Blocked, not-run and erroneous checks are in neither list of tests: they
    caused nothing and prove nothing. The evidence holds them.

    Raises CertificateError for an inconclusive verdict: there is nothing to put a name to.
    """
    result = _RESULTS.get(evidence.verdict.verdict)
    if result is None:
        raise CertificateError(
            f"row {evidence.row_id} is {evidence.verdict.verdict}: only certified and rejected rows are recorded"
        )
    by_status = {
        status: sorted(one.check for one in evidence.findings if one.status is status)
        for status in (Status.PASSED, Status.FAILED)
    }
    recorded = evidence.to_json()
    about = (
        subject(f"{evidence.row_id}/image-configuration", evidence.image.id)
        if evidence.image
        else subject(f"{evidence.row_id}/Dockerfile", evidence.dockerfile_digest or "")
    )
    predicate = {
        "result": result,
        "configuration": [
            {"name": "row", "digest": {"sha256": _digest(evidence.row)}},
            *(
                [{"name": "Dockerfile", "digest": {"sha256": recorded["dockerfile_digest"]}}]
                if recorded["dockerfile_digest"]
                else []
            ),
            {"name": "checks", "digest": {"sha256": recorded["checks_digest"]}},
            {"name": "releases", "digest": {"sha256": recorded["releases_digest"]}},
        ],
        "passedTests": by_status[Status.PASSED],
        "warnedTests": [],
        "failedTests": by_status[Status.FAILED],
        EVIDENCE: recorded,
    }
    return statement([about], TEST_RESULT, predicate)


def about_manifest(local: dict[str, Any], repository: str, manifest_digest: str) -> dict[str, Any]:
    """Return the same statement with the registry's manifest as its first subject."""
    others = [one for one in local["subject"] if one["name"] != repository]
    return {**local, "subject": [subject(repository, manifest_digest), *others]}


def check(raw: Any) -> dict[str, Any]:
    """Return `raw` if it is a statement of a row's verdict whose parts agree with each other.

    Raises CertificateError saying which part does not.
    """
    if not isinstance(raw, dict) or raw.get("_type") != STATEMENT_TYPE:
        raise CertificateError(f"this is no in-toto statement of type {STATEMENT_TYPE}")
    if raw.get("predicateType") != TEST_RESULT:
        raise CertificateError(f"this statement is about {raw.get('predicateType')!r}, not {TEST_RESULT!r}")
    try:
        evidence = RowEvidence.from_json(raw["predicate"][EVIDENCE])
        digests = {sha256_hex(one["digest"]["sha256"]) for one in raw["subject"]}
        expected = test_result(evidence)
    except (KeyError, TypeError, AttributeError) as error:
        raise CertificateError(f"this statement lacks a part: {error!r}") from error
    if raw["predicate"] != expected["predicate"]:
        raise CertificateError("this statement's result and its evidence contradict each other")
    if raw["predicate"]["result"] == _RESULTS["certified"] and (why := _unsupported(evidence)):
        raise CertificateError(f"this statement says that the row is certified, and {why}")
    if expected["subject"][0]["digest"]["sha256"] not in digests:
        raise CertificateError("this statement's evidence is about another image than its subject")
    return raw


def _unsupported(evidence: RowEvidence) -> str:
    """Return why the findings do not carry a certificate; empty when they do."""
    if evidence.image is None or not evidence.required:
        return "it names no image" if evidence.image is None else "no check was required"
    passed = {finding.check for finding in evidence.findings if finding.status is Status.PASSED}
    missing = sorted(set(evidence.required) - passed)
    wrong = sorted(one.check for one in evidence.findings if one.status in (Status.FAILED, Status.ERROR))
    if missing:
        return f"it lacks the pass of {', '.join(missing)}"
    return f"{', '.join(wrong)} did not pass" if wrong else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
