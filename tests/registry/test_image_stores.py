"""Publishing from a newer engine with either image store: an image's id is its configuration's, or its manifest's."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import clients
import publish_samples as samples
import pytest
from publisher import Publisher

from assay import keys
from assay.engine import Engine, find
from assay.errors import Refused
from assay.findings import Level
from assay.verify import Trust, examine

sys.path.append(str(Path(__file__).parents[1] / "engine"))
import newer_engine


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for the engine, fetched once for both stores. Not pytest's own: its path is too long for sockets."""
    if os.geteuid() != 0 or shutil.which("runc") is None or shutil.which("apt-get") is None:
        pytest.skip("needs root, Debian's apt, and runc")
    with tempfile.TemporaryDirectory(prefix="assay-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture(scope="module", params=["classic", "containerd"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(folder: Path, store: str) -> Iterator[Engine]:
    """An engine of its own, in place of the machine's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", newer_engine.start(folder, store))
        try:
            engine = Engine(find.find(start=False, say=print))
            yield engine
            engine.close()
        finally:
            newer_engine.stop(folder)


def certified(publisher: Publisher, image: Callable[..., str]) -> str:
    image_id = image()
    samples.write_certificate(publisher.out, samples.evidence(samples.row(), image_id), publisher.key)
    return image_id


def test_what_is_published_is_the_certified_image_and_anyone_can_verify_it(
    publisher: Publisher,
    store: str,
    image: Callable[..., str],
    client: Callable[[str], str],
    tmp_path: Path,
) -> None:
    image_id = certified(publisher, image)
    (done,) = publisher(samples.row())
    manifest = publisher.registry.manifest(publisher.repository, str(done.reference.digest))
    assert manifest is not None
    assert image_id == {"classic": manifest.config_digest, "containerd": manifest.digest}[store]
    assert not [tag for tag in publisher.tags() if tag.startswith("candidate-")]

    assert publisher.key is not None
    seen = examine(publisher.registry, done.reference, Trust(keys=(publisher.key.public,), allow_unsigned=False))
    assert seen.standing(Level.IMAGE)
    keys.write_pair(publisher.key, tmp_path)
    trusted = ("--key", str(tmp_path / "assay.pub"), "--insecure-ignore-tlog", "--allow-http-registry")
    clients.run(client("cosign"), "verify", *trusted, str(done.reference))


def test_the_same_image_again_changes_nothing_and_another_one_gets_no_full_tag(
    publisher: Publisher, image: Callable[..., str]
) -> None:
    certified(publisher, image)
    (first,) = publisher(samples.row())
    tags = publisher.tags()
    (again,) = publisher(samples.row())
    assert again.reference == first.reference
    assert publisher.tags() == tags
    certified(publisher, image)  # another one, of the same row
    with pytest.raises(Refused, match="a full tag never moves"):
        publisher(samples.row())
    assert publisher.tags() == tags
