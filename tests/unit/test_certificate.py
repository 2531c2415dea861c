"""Certificates: what they say, that a changed byte is found, and when they still answer."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import publish_samples as samples
import pytest

from assay import keys
from assay.certificate import (
    CacheInputs,
    Certificate,
    GpuUsed,
    ImageIdentity,
    Ingredient,
    RowEvidence,
    cache,
    dsse,
    make_certificate,
    store,
)
from assay.certificate import statement as statements
from assay.certificate.evidence import canonical_json, row_json, sha256_hex
from assay.certificate.record import about_manifest
from assay.errors import CertificateError
from assay.findings import Level
from assay.verdict import Verdict

IMAGE = "sha256:" + "1" * 64
KEY = keys.generate()


def evidence(**changes: Any) -> RowEvidence:
    return replace(samples.evidence(samples.row(), IMAGE, tags=("assay/cu121:latest",)), **changes)


def test_the_statement_is_an_in_toto_test_result() -> None:
    statement = make_certificate(evidence()).statement
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["subject"] == [{"name": "cu121/image-configuration", "digest": {"sha256": "1" * 64}}]
    predicate = statement["predicate"]
    assert predicate["result"] == "PASSED"
    assert predicate["passedTests"] == sorted(samples.REQUIRED)
    assert predicate["failedTests"] == []
    assert {one["name"] for one in predicate["configuration"]} == {"row", "Dockerfile", "checks", "releases"}


def test_a_rejection_is_recorded_in_the_same_way() -> None:
    row = samples.rejected_row()
    certificate = make_certificate(samples.evidence(row, IMAGE, failed="torch.import"))
    assert not certificate.certified
    assert certificate.statement["predicate"]["result"] == "FAILED"
    assert certificate.statement["predicate"]["failedTests"] == ["torch.import"]


def test_a_failed_build_is_about_its_dockerfile() -> None:
    row = samples.rejected_row()
    built = replace(samples.evidence(row, None, failed="torch.import"), dockerfile_digest="2" * 64)
    assert make_certificate(built).subjects == {"sha256:" + "2" * 64}


def test_an_inconclusive_verdict_is_not_recorded() -> None:
    nothing = evidence(verdict=Verdict(verdict="inconclusive", as_expected=False, why="no network"))
    with pytest.raises(CertificateError, match="inconclusive"):
        make_certificate(nothing)


@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
@pytest.mark.parametrize("level", list(Level))
def test_what_is_written_is_read_back(tmp_path: Path, key: keys.SigningKey | None, level: Level) -> None:
    given = samples.evidence(samples.row(), IMAGE, level=level)
    certificate = make_certificate(given, key)
    store.write(tmp_path / "certificate.json", certificate)
    found = store.read(tmp_path / "certificate.json")
    assert found == certificate
    assert found.evidence == given
    assert found.signature_text == (f"signed by key {KEY.public.keyid[:16]}" if key else "unsigned")
    assert [path.name for path in tmp_path.iterdir()] == ["certificate.json"]


@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
def test_every_changed_byte_is_found(tmp_path: Path, key: keys.SigningKey | None) -> None:
    path = tmp_path / "certificate.json"
    store.write(path, make_certificate(evidence(), key))
    whole = path.read_bytes()
    step = max(1, len(whole) // 400)  # some 400 places, spread over the file
    for place in [*range(0, len(whole), step), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        path.write_bytes(bytes(damaged))
        with pytest.raises(CertificateError):
            store.read(path)
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(CertificateError):
            store.read(path)


def test_a_certificate_that_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.read(tmp_path / "certificate.json")


def forged(change: Any) -> Certificate:
    """Return a certificate whose statement was changed and signed anew, by someone who has the key."""
    statement = json.loads(make_certificate(evidence(), KEY).envelope.payload)
    change(statement)
    return Certificate(dsse.sign(canonical_json(statement), KEY))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["predicate"].update(result="FAILED"),
        lambda one: one["predicate"].update(passedTests=["torch.import"]),
        lambda one: one["predicate"][statements.EVIDENCE]["verdict"].update(verdict="rejected"),
        lambda one: one["predicate"][statements.EVIDENCE]["image"].update(id="sha256:" + "9" * 64),
        lambda one: one["subject"][0]["digest"].update(sha256="9" * 64),
        lambda one: one.update(subject=[]),
        lambda one: one["predicate"].pop(statements.EVIDENCE),
        lambda one: one.update(predicateType="https://slsa.dev/provenance/v1"),
        lambda one: one.update(_type="https://in-toto.io/Statement/v0.1"),
    ],
)
def test_a_statement_that_contradicts_itself_is_refused(change: Any) -> None:
    with pytest.raises(CertificateError):
        _ = forged(change).statement


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"findings": ()}, "it lacks the pass of"),
        ({"required": ()}, "no check was required"),
        ({"image": None}, "it names no image"),
    ],
)
def test_a_certificate_that_its_findings_do_not_carry_is_never_made(change: dict[str, Any], why: str) -> None:
    with pytest.raises(CertificateError, match=why):
        make_certificate(replace(evidence(), **change))


def test_the_published_statement_names_the_manifest_and_the_configuration() -> None:
    manifest = "sha256:" + "3" * 64
    published = about_manifest(make_certificate(evidence(), KEY), "localhost:5000/newbie", manifest, KEY)
    assert published.subjects == {manifest, IMAGE}
    assert published.statement["subject"][0]["name"] == "localhost:5000/newbie"
    assert published.evidence == evidence()
    again = about_manifest(published, "localhost:5000/newbie", manifest, KEY)
    assert again == published


@pytest.mark.parametrize("digest", ["", "sha256:", "sha512:" + "1" * 64, "1" * 63, "G" * 64, "sha256:" + "A" * 64])
def test_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(CertificateError):
        sha256_hex(digest)


def inputs(**changes: Any) -> CacheInputs:
    given = evidence()
    now = CacheInputs(
        row=row_json(samples.row()),
        image_id=IMAGE,
        dockerfile_digest=given.dockerfile_digest,
        ingredients=given.ingredients,
        base_digest=given.base_digest,
        checks_digest=given.checks_digest,
        releases_digest=given.releases_digest,
        level=Level.IMAGE,
        required=samples.REQUIRED,
    )
    return replace(now, **changes)


def test_a_certificate_answers_while_nothing_changed() -> None:
    valid, why = cache.still_valid(make_certificate(evidence()), inputs())
    assert valid
    assert "nothing changed since" in why


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"row": row_json(samples.row(cuda="12.2.0"))}, "the row's cuda changed"),
        ({"row": row_json(samples.row(expect="reject"))}, "the row's expect changed"),
        ({"image_id": None}, "no longer in the engine"),
        ({"image_id": "sha256:" + "2" * 64}, "the image changed"),
        ({"dockerfile_digest": "9" * 64}, "Dockerfile"),
        ({"base_digest": "sha256:" + "9" * 64}, "the base image changed"),
        ({"ingredients": (Ingredient(name="flash-attn", version="2.8.3", sha256="9" * 64),)}, "flash-attn"),
        ({"checks_digest": "9" * 64}, "the checks changed"),
        ({"releases_digest": "9" * 64}, "the releases table changed"),
        ({"level": Level.GPU}, "level image, now asked is gpu"),
        ({"required": (*samples.REQUIRED, "sample.colour")}, "sample.colour"),
        ({"key": KEY.public}, "unsigned"),
    ],
)
def test_each_change_invalidates_and_says_so(changes: dict[str, Any], reason: str) -> None:
    valid, why = cache.still_valid(make_certificate(evidence()), inputs(**changes))
    assert not valid
    assert reason in why


@pytest.mark.parametrize("changes", [{"what": "other words"}, {"runner": ("self-hosted",)}, {"tags": ("newest",)}])
def test_what_no_image_depends_on_invalidates_nothing(changes: dict[str, Any]) -> None:
    row = row_json(samples.row(**changes))
    assert cache.still_valid(make_certificate(evidence()), inputs(row=row))[0]


def test_a_gpu_certificate_answers_for_its_own_gpu_and_for_level_image() -> None:
    certificate = make_certificate(samples.evidence(samples.row(), IMAGE, level=Level.GPU))
    gpu = GpuUsed(name="NVIDIA A100-SXM4-40GB", uuid="GPU-1", driver="580.159.04")
    assert cache.still_valid(certificate, inputs(level=Level.GPU, gpu=gpu))[0]
    assert cache.still_valid(certificate, inputs(level=Level.IMAGE))[0]
    valid, why = cache.still_valid(certificate, inputs(level=Level.GPU, gpu=replace(gpu, driver="600.1")))
    assert not valid
    assert "600.1" in why
    assert not cache.still_valid(certificate, inputs(level=Level.GPU, gpu=None))[0]


def test_a_gpu_rejection_does_not_answer_for_level_image() -> None:
    row = samples.rejected_row()
    rejection = make_certificate(samples.evidence(row, IMAGE, failed="torch.import", level=Level.GPU))
    assert not cache.still_valid(rejection, inputs(row=row_json(row)))[0]


def test_a_failed_build_needs_no_image_to_answer() -> None:
    row = samples.rejected_row()
    rejection = make_certificate(samples.evidence(row, None, failed="torch.import"))
    assert cache.still_valid(rejection, inputs(row=row_json(row), image_id=None))[0]


def test_an_image_outlives_its_base_and_a_failed_build_does_not() -> None:
    assert cache.still_valid(make_certificate(evidence()), inputs(base_digest=None))[0]
    row = samples.rejected_row()
    rejection = make_certificate(samples.evidence(row, None, failed="torch.import"))
    valid, why = cache.still_valid(rejection, inputs(row=row_json(row), image_id=None, base_digest=None))
    assert not valid
    assert "no longer in the engine" in why


def test_an_incomplete_rejection_is_asked_again() -> None:
    row = samples.rejected_row()
    given = samples.evidence(row, IMAGE, failed="torch.import")
    incomplete = replace(given, verdict=replace(given.verdict, complete=False))
    valid, why = cache.still_valid(make_certificate(incomplete), inputs(row=row_json(row)))
    assert not valid
    assert "had not answered" in why


@pytest.mark.parametrize("level", Level)
def test_a_surprise_is_asked_again(level: Level) -> None:
    certificate = make_certificate(samples.evidence(samples.row(), IMAGE, failed="torch.import", level=level))
    gpu = GpuUsed(name="NVIDIA A100-SXM4-40GB", uuid="GPU-1", driver="580.159.04") if level is Level.GPU else None
    valid, why = cache.still_valid(certificate, inputs(level=level, gpu=gpu))
    assert not valid
    assert "did not come out as expected" in why


def test_evidence_needs_times_with_a_zone() -> None:
    with pytest.raises(CertificateError, match="time zone"):
        make_certificate(evidence(finished=samples.NOON.replace(tzinfo=None)))


def test_times_are_kept_to_the_moment_whatever_the_zone() -> None:
    given = evidence(finished=samples.NOON + timedelta(microseconds=7))
    assert make_certificate(given).evidence.finished == given.finished


def test_an_image_identity_keeps_its_tags() -> None:
    assert make_certificate(evidence()).evidence.image == ImageIdentity(
        id=IMAGE, size=1234, tags=("assay/cu121:latest",)
    )
