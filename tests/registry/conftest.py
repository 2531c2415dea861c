"""Fixtures for tests on a real registry: Debian's docker-registry on loopback, a real engine, real clients."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assay import keys
from assay.engine import Engine

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).parent))
import clients
import publish_samples as samples
import servers
from publisher import Publisher, publisher_to


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


@pytest.fixture
def publisher(engine: Engine, host: str, tmp_path: Path) -> Publisher:
    """A publisher with an ECDSA key, straight to the registry."""
    return publisher_to(engine, host, tmp_path, keys.generate())


@pytest.fixture
def behind_proxy(engine: Engine, proxy: servers.Proxy, tmp_path: Path) -> Publisher:
    """A publisher whose registry is behind the proxy."""
    return publisher_to(engine, proxy.host, tmp_path, keys.generate())
