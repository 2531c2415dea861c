"""What must not be published is refused, and nothing of it is in the registry afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import publish_samples as samples
import pytest
from publisher import Publisher

from assay import keys, oci
from assay.certificate import store
from assay.certificate.dsse import Envelope
from assay.engine import Engine
from assay.errors import Refused
from assay.findings import Level
from assay.matrix import load
from assay.oci import parse_reference
from assay.publish.attachments import cosign_attestations
from assay.verify import Trust, examine

FULL_TAG = "exp0.1-cu12.1.105-torch2.4.0-fa2.8.3-py311"


def refused(publisher: Publisher, *args: object, **options: object) -> str:
    """Publish, expect a refusal that leaves no tag, and return its words."""
    before = publisher.tags()
    with pytest.raises(Refused) as caught:
        publisher(*args, **options)  # type: ignore[arg-type]
    assert publisher.tags() == before
    return str(caught.value)


def test_a_tampered_certificate(publisher: Publisher, image: Callable[..., str]) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), publisher.key)
    path = publisher.out / "cu121" / store.NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert "cu121" in refused(publisher, samples.row())


def test_a_certificate_that_was_forged_with_another_key(publisher: Publisher, image: Callable[..., str]) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), keys.generate())
    assert "does not verify" in refused(publisher, samples.row())


def test_an_unsigned_certificate_where_there_is_a_key(publisher: Publisher, image: Callable[..., str]) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), None)
    assert "unsigned" in refused(publisher, samples.row())
    (done,) = publisher(samples.row(), accept_unsigned=True)
    assert done.signed


def test_a_swapped_image(publisher: Publisher, image: Callable[..., str], engine: Engine) -> None:
    certified, other = image(), image()
    name = "assay-test/swapped:latest"
    try:
        engine.tag(other, name)
        samples.write_certificate(
            publisher.out, samples.evidence(samples.row(), certified, tags=(name,)), publisher.key
        )
        assert "the image changed since" in refused(publisher, samples.row())
    finally:
        engine.client.images.remove(name)


def test_an_image_that_is_gone(publisher: Publisher) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), "sha256:" + "0" * 64), publisher.key)
    assert "no longer in the engine" in refused(publisher, samples.row())


def test_a_rejected_row(publisher: Publisher, image: Callable[..., str]) -> None:
    row = samples.rejected_row()
    rejected = samples.evidence(row, image(), failed="torch.import")
    assert rejected.verdict.as_expected
    samples.write_certificate(publisher.out, rejected, publisher.key)
    assert "no row" in refused(publisher, row)
    assert "it is rejected" in refused(publisher, row, named=(row.id,))


def test_one_bad_row_keeps_the_good_ones_back(publisher: Publisher, image: Callable[..., str]) -> None:
    good, bad = samples.row(), samples.row("broken", tags=())
    samples.write_certificate(publisher.out, samples.evidence(good, image()), publisher.key)
    failed = samples.evidence(bad, image(), failed="torch.import")
    samples.write_certificate(publisher.out, failed, publisher.key)
    assert "broken: it is rejected" in refused(publisher, good, bad)


def test_a_lower_level_than_the_matrix_asks_for(publisher: Publisher, image: Callable[..., str]) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), publisher.key)
    assert "asks for gpu" in refused(publisher, samples.row(), level=Level.GPU)


def test_a_row_that_changed_since(publisher: Publisher, image: Callable[..., str]) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), publisher.key)
    assert "base changed" in refused(publisher, samples.row(base="debian:trixie"))


def test_another_image_under_a_published_full_tag(publisher: Publisher, image: Callable[..., str]) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), publisher.key)
    (first,) = publisher(samples.row())
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), publisher.key)
    assert "a full tag never moves" in refused(publisher, samples.row())
    held = publisher.registry.manifest(publisher.repository, FULL_TAG)
    assert held
    assert held.digest == first.reference.digest


def test_publishing_the_same_image_again_changes_nothing(publisher: Publisher, image: Callable[..., str]) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), publisher.key)
    (first,) = publisher(samples.row())
    digest = first.reference.digest
    assert digest
    before = publisher.tags(), publisher.registry.referrers(publisher.repository, digest)
    (second,) = publisher(samples.row())
    assert second == first
    assert (publisher.tags(), publisher.registry.referrers(publisher.repository, digest)) == before


def test_a_moving_tag_goes_forward_only(publisher: Publisher, image: Callable[..., str]) -> None:
    newer, older = samples.row(), samples.row("torch25")
    samples.write_certificate(publisher.out, samples.evidence(newer, image()), publisher.key)
    (first,) = publisher(newer)
    early = samples.evidence(older, image(torch="2.5.0+cu121"), finished=samples.NOON - timedelta(days=1))
    samples.write_certificate(publisher.out, early, publisher.key)
    assert "--backwards" in refused(publisher, older)
    latest = publisher.registry.manifest(publisher.repository, "latest")
    assert latest
    assert latest.digest == first.reference.digest
    (moved,) = publisher(older, backwards=True)
    latest = publisher.registry.manifest(publisher.repository, "latest")
    assert latest
    assert latest.digest == moved.reference.digest


def test_two_rows_for_one_tag(publisher: Publisher, image: Callable[..., str]) -> None:
    rows = samples.row("one"), samples.row("two")
    for row in rows:
        samples.write_certificate(publisher.out, samples.evidence(row, image()), publisher.key)
    assert "both ask for the tag" in refused(publisher, *rows)


def test_a_tag_that_was_moved_in_the_registry_does_not_verify(publisher: Publisher, image: Callable[..., str]) -> None:
    """Somebody with write access points a certified tag at another image, and brings the certificate along."""
    row, other = samples.row(), samples.row("other", tags=())
    samples.write_certificate(publisher.out, samples.evidence(row, image()), publisher.key)
    samples.write_certificate(publisher.out, samples.evidence(other, image(torch="2.5.0+cu121")), publisher.key)
    first, second = publisher(row, other)
    registry, repository, key = publisher.registry, publisher.repository, publisher.key
    assert key
    assert first.reference.digest
    assert second.reference.digest
    # an image without any certificate: a third manifest, made of the second one's parts
    victim = registry.manifest(repository, second.reference.digest)
    assert victim
    bare = oci.Manifest(victim.data + b"\n", victim.media_type)
    registry.put_manifest(repository, FULL_TAG, bare)
    trust = Trust(keys=(key.public,))
    seen = examine(registry, parse_reference(f"{registry.host}/{repository}:{FULL_TAG}"), trust)
    assert seen.answer()[0] == "not certified"

    stolen = [
        Envelope.from_bytes(registry.blob(repository, layer["digest"]))
        for one in registry.referrers(repository, first.reference.digest)
        if one["artifactType"] == "application/vnd.in-toto.test-result+dsse"
        for layer in registry.manifest(repository, one["digest"]).json["layers"]  # type: ignore[union-attr]
    ]
    brought = cosign_attestations(None, stolen)
    for blob in brought.blobs:
        registry.put_blob(repository, blob)
    registry.put_manifest(repository, f"{oci.referrers_tag(bare.digest)}.att", brought.manifest)
    seen = examine(registry, parse_reference(f"{registry.host}/{repository}:{FULL_TAG}"), trust)
    assert seen.answer()[0] == "not certified"
    assert any("it is about" in problem for problem in seen.problems)


def test_the_command_says_why_and_exits_1(publisher: Publisher, image: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "matrix.toml").write_text(
        '[publish]\nlevel = "image"\n[[row]]\nid = "cu121"\nwhat = "a row"\nexpect = "certify"\ntags = ["latest"]\n'
    )
    row = load(tmp_path / "matrix.toml").rows[0]
    rejected = samples.evidence(row, image(), failed="torch.import")
    samples.write_certificate(tmp_path / "build", rejected, publisher.key)
    assert publisher.key
    done = subprocess.run(
        [sys.executable, "-m", "assay", "publish", "--registry", publisher.registry.host, "--allow-http"],
        cwd=tmp_path,
        env={**os.environ, keys.KEY_VARIABLE: publisher.key.pem().decode()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "cu121: it is rejected" in done.stderr
    assert publisher.registry.tags("newbie-image") == []
