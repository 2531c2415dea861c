"""Pruning and revoking on a real registry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import publish_samples as samples
import pytest
from publisher import Publisher

from assay import keys, oci, prune
from assay.errors import CertificateError
from assay.keys import SigningKey
from assay.oci import parse_reference
from assay.prune import Useless
from assay.revoke import revoke
from assay.verify import Trust, examine

TORCHES = ("2.4.0+cu121", "2.5.1+cu121", "2.6.0+cu121")


def signing(publisher: Publisher) -> SigningKey:
    assert publisher.key
    return publisher.key


def publish_in_turn(publisher: Publisher, image: Callable[..., str]) -> list[str]:
    """Publish three images of one row, a day apart, `latest` moving along; return their digests, oldest first."""
    digests = []
    for day, torch in enumerate(TORCHES):
        made = samples.evidence(samples.row(), image(torch=torch), finished=samples.NOON + timedelta(days=day))
        samples.write_certificate(publisher.out, made, publisher.key)
        (done,) = publisher(samples.row())
        digests.append(str(done.reference.digest))
    return digests


def find(publisher: Publisher, keep: int = 1) -> list[Useless]:
    target = parse_reference(f"{publisher.registry.host}/{publisher.repository}")
    return prune.find(publisher.registry, target, Trust(keys=(signing(publisher).public,)), keep)


def remove_all(publisher: Publisher, found: list[Useless]) -> None:
    target = parse_reference(f"{publisher.registry.host}/{publisher.repository}")
    for one in found:
        assert prune.remove(publisher.registry, target, one)


def certified(publisher: Publisher, digest: str) -> bool:
    reference = parse_reference(f"{publisher.registry.host}/{publisher.repository}@{digest}")
    trust = Trust(keys=(signing(publisher).public,))
    return examine(publisher.registry, reference, trust).answer()[0] == "certified"


def test_what_newer_images_replace_goes_and_the_rest_still_verifies(
    publisher: Publisher, image: Callable[..., str]
) -> None:
    oldest, middle, newest = publish_in_turn(publisher, image)
    assert [one.digests[-1] for one in find(publisher)] == [oldest, middle]
    (only,) = find(publisher, keep=2)
    assert only.digests[-1] == oldest
    assert "newer certified image" in only.why
    remove_all(publisher, find(publisher, keep=2))
    assert find(publisher, keep=2) == []
    registry, repository = publisher.registry, publisher.repository
    assert registry.manifest(repository, oldest) is None
    assert not [tag for tag in publisher.tags() if oldest.replace(":", "-") in tag or "torch2.4.0" in tag]
    assert certified(publisher, middle)
    assert certified(publisher, newest)
    assert len(registry.referrers(repository, middle)) == 4


def test_an_image_that_a_moving_tag_names_stays_however_old(publisher: Publisher, image: Callable[..., str]) -> None:
    oldest, middle, _ = publish_in_turn(publisher, image)
    registry, repository = publisher.registry, publisher.repository
    held = registry.manifest(repository, oldest)
    assert held
    registry.put_manifest(repository, "stable", held)
    assert [one.digests[-1] for one in find(publisher)] == [middle]


def test_what_is_not_ours_is_left_alone(publisher: Publisher, image: Callable[..., str]) -> None:
    oldest, _, _ = publish_in_turn(publisher, image)
    target = parse_reference(f"{publisher.registry.host}/{publisher.repository}")
    stranger = Trust(keys=(keys.generate().public,))
    assert prune.find(publisher.registry, target, stranger) == []
    assert certified(publisher, oldest)


def test_leftovers_of_broken_pushes_go(publisher: Publisher, image: Callable[..., str]) -> None:
    digests = publish_in_turn(publisher, image)
    registry, repository = publisher.registry, publisher.repository
    held = registry.manifest(repository, digests[-1])
    assert held
    registry.put_manifest(repository, "candidate-0123456789abcdef", held)
    orphan = oci.referrers_tag("sha256:" + "0" * 64)
    registry.put_manifest(repository, orphan, oci.index([]))
    found = {one.name.rpartition(":")[2]: one for one in find(publisher, keep=3)}
    assert set(found) == {"candidate-0123456789abcdef", orphan}
    remove_all(publisher, list(found.values()))
    assert not {"candidate-0123456789abcdef", orphan} & set(publisher.tags())
    assert all(certified(publisher, digest) for digest in digests)


def test_a_revocation_holds_until_the_image_is_certified_again(publisher: Publisher, image: Callable[..., str]) -> None:
    image_id = image()
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image_id), publisher.key)
    (done,) = publisher(samples.row())
    when = samples.NOON + timedelta(days=1)
    revoke(publisher.registry, done.reference, "a hole", signing(publisher), when)
    seen = examine(publisher.registry, done.reference, Trust(keys=(signing(publisher).public,)))
    assert seen.answer() == ("revoked", "revoked on 2026-03-02 12:00 UTC: a hole")
    again = samples.evidence(samples.row(), image_id, finished=when + timedelta(hours=1))
    samples.write_certificate(publisher.out, again, publisher.key)
    publisher(samples.row())
    assert certified(publisher, str(done.reference.digest))


def test_a_certificate_by_a_clock_that_is_ahead_does_not_outlive_its_revocation(
    publisher: Publisher, image: Callable[..., str]
) -> None:
    ahead = datetime.now(timezone.utc) + timedelta(days=3)
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image(), finished=ahead), publisher.key)
    (done,) = publisher(samples.row())
    assert certified(publisher, str(done.reference.digest))
    revoke(publisher.registry, done.reference, "a hole", signing(publisher))
    seen = examine(publisher.registry, done.reference, Trust(keys=(signing(publisher).public,)))
    assert seen.answer()[0] == "revoked"


def test_a_revocation_by_a_stranger_is_reported_and_not_honoured(
    publisher: Publisher, image: Callable[..., str]
) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), publisher.key)
    (done,) = publisher(samples.row())
    for stranger in (keys.generate(), None):
        revoke(publisher.registry, done.reference, "spite", stranger)
    seen = examine(publisher.registry, done.reference, Trust(keys=(signing(publisher).public,)))
    assert seen.answer()[0] == "certified"
    assert len([one for one in seen.problems if "revocation is not believed" in one]) == 2


def test_without_a_key_a_signed_revocation_counts_against_the_image(
    publisher: Publisher, image: Callable[..., str]
) -> None:
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image()), publisher.key)
    (done,) = publisher(samples.row())
    revoke(publisher.registry, done.reference, "a hole", signing(publisher))
    assert examine(publisher.registry, done.reference, Trust()).answer()[0] == "revoked"


def test_a_revoked_image_without_moving_tag_may_go(publisher: Publisher, image: Callable[..., str]) -> None:
    oldest, _, _ = publish_in_turn(publisher, image)
    reference = parse_reference(f"{publisher.registry.host}/{publisher.repository}@{oldest}")
    revoke(publisher.registry, reference, "a hole", signing(publisher), datetime.now(timezone.utc))
    (gone,) = find(publisher, keep=5)
    assert gone.digests[-1] == oldest
    assert "revoked" in gone.why


def test_nothing_can_be_revoked_that_is_not_there(publisher: Publisher) -> None:
    reference = parse_reference(f"{publisher.registry.host}/nothing:latest")
    with pytest.raises(CertificateError, match="no single image"):
        revoke(publisher.registry, reference, "why", signing(publisher))
