"""Published images as real clients see them: cosign, oras, skopeo and docker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import clients
import publish_samples as samples
import pytest
from publisher import Publisher

from assay import keys
from assay.certificate.statement import TEST_RESULT
from assay.findings import Level
from assay.keys import SigningKey

FULL_TAG = "exp0.1-cu12.1.105-torch2.4.0-fa2.8.3-py311"


@pytest.fixture(params=["ecdsa-p256", "ed25519"])
def key(request: pytest.FixtureRequest) -> SigningKey:
    return keys.generate(request.param)


def published(publisher: Publisher, image: Callable[..., str], key: SigningKey | None) -> str:
    """Publish one certified row and return its digest-pinned reference."""
    publisher.key = key
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), key)
    (done,) = publisher(samples.row())
    return str(done.reference)


def test_cosign_verifies_signature_and_attestations(
    publisher: Publisher, image: Callable[..., str], client: Callable[[str], str], tmp_path: Path, key: SigningKey
) -> None:
    cosign = client("cosign")
    reference = published(publisher, image, key)
    keys.write_pair(key, tmp_path)
    trusted = ("--key", str(tmp_path / "assay.pub"), "--insecure-ignore-tlog", "--allow-http-registry")

    verified = clients.run(cosign, "verify", *trusted, reference)
    (payload,) = json.loads(verified.stdout)
    assert payload["critical"]["image"]["docker-manifest-digest"] in reference

    for kind in (TEST_RESULT, "slsaprovenance1", "cyclonedx"):
        attested = clients.run(cosign, "verify-attestation", *trusted, "--type", kind, reference)
        envelopes = [json.loads(line) for line in attested.stdout.splitlines() if line.startswith("{")]
        assert len(envelopes) == 1, kind

    keys.write_pair(keys.generate(), tmp_path / "other")
    wrong = ("--key", str(tmp_path / "other" / "assay.pub"), "--insecure-ignore-tlog", "--allow-http-registry")
    assert clients.run(cosign, "verify", *wrong, reference, check=False).returncode != 0
    refused = clients.run(cosign, "verify-attestation", *wrong, "--type", TEST_RESULT, reference, check=False)
    assert refused.returncode != 0


def test_oras_finds_every_artifact_and_pulls_the_certificate(
    publisher: Publisher, image: Callable[..., str], client: Callable[[str], str], tmp_path: Path
) -> None:
    oras = client("oras")
    reference = published(publisher, image, publisher.key)
    found = clients.run(oras, "discover", "--plain-http", "--format", "json", reference)
    manifests = {one["artifactType"]: one["digest"] for one in json.loads(found.stdout)["manifests"]}
    assert set(manifests) == {
        "application/vnd.in-toto.test-result+dsse",
        "application/vnd.in-toto.provenance+dsse",
        "application/vnd.cyclonedx+json",
        "application/vnd.dev.cosign.artifact.sig.v1+json",
    }
    name = reference.partition("@")[0]
    certificate = manifests["application/vnd.in-toto.test-result+dsse"]
    clients.run(oras, "pull", "--plain-http", "-o", str(tmp_path / "got"), f"{name}@{certificate}")
    assert json.loads((tmp_path / "got" / "certificate.json").read_text())["signatures"]


def test_skopeo_and_docker_get_the_image_by_tag_and_digest(
    publisher: Publisher, image: Callable[..., str], client: Callable[[str], str]
) -> None:
    skopeo, docker = client("skopeo"), client("docker")
    reference = published(publisher, image, publisher.key)
    name, _, digest = reference.partition("@")
    for at in (f"{name}:{FULL_TAG}", f"{name}:latest"):
        inspected = clients.run(skopeo, "inspect", "--tls-verify=false", f"docker://{at}")
        assert json.loads(inspected.stdout)["Digest"] == digest
    try:
        for at in (f"{name}:{FULL_TAG}", reference):
            clients.run(docker, "pull", at)
            assert clients.run(docker, "inspect", "--format", "{{.Id}}", at).stdout.strip()
    finally:
        clients.run(docker, "image", "rm", f"{name}:{FULL_TAG}", reference, check=False)


def test_publishing_leaves_exactly_the_expected_tags(publisher: Publisher, image: Callable[..., str]) -> None:
    reference = published(publisher, image, publisher.key)
    stem = reference.partition("@")[2].replace(":", "-")
    assert publisher.tags() == sorted([FULL_TAG, "latest", stem, f"{stem}.att", f"{stem}.sig"])


def test_the_command_line_publishes_verifies_revokes(
    publisher: Publisher, image: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `assay key` to `assay revoke`, each as a process of its own."""
    import sys

    assay = (sys.executable, "-m", "assay")
    monkeypatch.chdir(tmp_path)
    clients.run(*assay, "key", "--out", "keys")
    signing = keys.load_signing_key(tmp_path / "keys" / "assay.key")
    reference = published(publisher, image, signing)
    trusted = ("--key", "keys/assay.pub", "--allow-http")
    yes = clients.run(*assay, "verify", *trusted, reference)
    assert "certified: row cu121, level image on no GPU" in yes.stdout
    assert clients.run(*assay, "verify", *trusted, "--level", "gpu", reference, check=False).returncode == 1
    assert clients.run(*assay, "verify", "--allow-http", reference, check=False).returncode == 3
    why = "a library with a known hole"
    clients.run(*assay, "revoke", "--key", "keys/assay.key", "--allow-http", "--reason", why, reference)
    no = clients.run(*assay, "verify", *trusted, reference, check=False)
    assert no.returncode == 1
    assert "revoked on" in no.stdout
    assert why in no.stdout


def test_unsigned_publishing_says_so_everywhere(
    publisher: Publisher, image: Callable[..., str], tmp_path: Path
) -> None:
    import sys

    reference = published(publisher, image, None)
    assert any("UNSIGNED" in line for line in publisher.lines)
    assert not [tag for tag in publisher.tags() if tag.endswith((".sig", ".att"))]
    assay = (sys.executable, "-m", "assay", "verify", "--allow-http")
    assert clients.run(*assay, reference, check=False).returncode == 1
    believed = clients.run(*assay, "--allow-unsigned", reference)
    assert "UNSIGNED" in believed.stdout
    keys.write_pair(keys.generate(), tmp_path)
    assert clients.run(*assay, "--key", str(tmp_path / "assay.pub"), reference, check=False).returncode == 1


def test_a_gpu_certificate_joins_the_image_certificate_of_the_same_digest(
    publisher: Publisher, image: Callable[..., str]
) -> None:
    image_id = image()
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image_id), publisher.key)
    (first,) = publisher(samples.row())
    on_gpu = samples.evidence(samples.row(), image_id, level=Level.GPU, finished=samples.NOON.replace(hour=13))
    samples.write_certificate(publisher.out, on_gpu, publisher.key)
    (second,) = publisher(samples.row(), level=Level.GPU)
    assert first.reference == second.reference
    from assay.verify import Trust, examine

    assert publisher.key
    seen = examine(publisher.registry, second.reference, Trust(keys=(publisher.key.public,)))
    assert [one.certificate.evidence.level for one in seen.standing()] == [Level.GPU, Level.IMAGE]
    assert "NVIDIA A100" in seen.answer(Level.GPU)[1]
