"""Fixtures for tests on a real registry: Debian's docker-registry on loopback, a real engine, real clients."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assay import keys
from assay.engine import Engine
from assay.findings import Level
from assay.keys import SigningKey
from assay.matrix.row import Row
from assay.oci import parse_reference
from assay.publish.flow import Published, Settings, publish
from assay.publish.gate import Policy, select
from assay.registry import Registry

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).parent))
import clients
import publish_samples as samples
import servers


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine that a run on this machine would use."""
    return Engine.connect(start=False)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A registry that allows deleting."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs Debian's package docker-registry")
    folder = tmp_path / "registry"
    folder.mkdir()
    with servers.docker_registry(folder) as address:
        yield address


@pytest.fixture
def proxy(host: str) -> Iterator[servers.Proxy]:
    """A proxy before the registry, which fails when it is told to."""
    with servers.faulty_proxy(host) as running:
        yield running


@pytest.fixture(scope="session")
def client() -> Callable[[str], str]:
    """Returns the path of a real client, or skips the test where the machine can have none."""

    def find(name: str) -> str:
        path = clients.find(name)
        if path is None:
            pytest.skip(f"needs {name}")
        return path

    return find


@pytest.fixture
def image(engine: Engine) -> Iterator[Callable[..., str]]:
    """Makes an image and returns its id; all are removed afterwards."""
    made: list[str] = []

    def make(**changes: str) -> str:
        name = f"assay-test/{secrets.token_hex(6)}:latest"
        made.append(name)
        files = samples.file_system(**{"seed": name, **changes})
        return str(engine.import_tar(samples.tar(files), name).id)

    yield make
    for name in made:
        engine.client.images.remove(name, force=True)


@dataclass
class Publisher:
    """Publishes rows as the command does, without the command line."""

    engine: Engine
    registry: Registry
    out: Path
    key: SigningKey | None
    repository: str = "newbie"
    lines: list[str] = field(default_factory=list)

    def __call__(
        self,
        *rows: Row,
        level: Level = Level.IMAGE,
        named: tuple[str, ...] = (),
        accept_unsigned: bool = False,
        backwards: bool = False,
    ) -> list[Published]:
        """Publish what may be published of `rows`."""
        policy = Policy(level=level, key=self.key.public if self.key else None, accept_unsigned=accept_unsigned)
        chosen = select(
            rows,
            named=named,
            out=self.out,
            image_id=self.engine.image_id,
            policy=policy,
            on_line=self.lines.append,
        )
        settings = Settings(
            target=parse_reference(f"{self.registry.host}/{self.repository}"),
            prefix="exp0.1",
            key=self.key,
            out=self.out,
            backwards=backwards,
        )
        return publish(chosen, engine=self.engine, registry=self.registry, settings=settings, on_line=self.lines.append)

    def tags(self) -> list[str]:
        """Return every tag that the repository has."""
        return self.registry.tags(self.repository)


@pytest.fixture
def publisher(engine: Engine, host: str, tmp_path: Path) -> Publisher:
    """A publisher with an ECDSA key, straight to the registry."""
    return _publisher(engine, host, tmp_path, keys.generate())


@pytest.fixture
def behind_proxy(engine: Engine, proxy: servers.Proxy, tmp_path: Path) -> Publisher:
    """A publisher whose registry is behind the proxy."""
    return _publisher(engine, proxy.host, tmp_path, keys.generate())


def _publisher(engine: Engine, host: str, folder: Path, key: SigningKey | None) -> Publisher:
    registry = Registry(host, allow_http=True, sleep=lambda seconds: None)
    return Publisher(engine, registry, folder / "out", key)
