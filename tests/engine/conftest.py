"""Fixtures for tests on a real Docker engine: the one that a run on this machine would use, or a private one."""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from assay.engine import Engine, private

BASE = "assay-test/tiny:latest"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine that a run on this machine would use."""
    engine = Engine.connect()
    yield engine
    engine.close()


@pytest.fixture
def base(engine: Engine) -> str:
    """A tiny image with a shell, in the engine."""
    if engine.find_image(BASE) is None:
        engine.import_tar(tiny.root_tar(), BASE)
    return BASE


@pytest.fixture
def name(engine: Engine) -> Iterator[str]:
    """An image name that nothing else uses; the image is removed afterwards."""
    reference = f"assay-test/{secrets.token_hex(6)}:latest"
    yield reference
    if engine.find_image(reference) is not None:
        engine.client.images.remove(reference, force=True)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of its own, and no other engine in sight; what runs there is stopped afterwards."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("needs root and the program dockerd")
    # Not pytest's own folder: its path is too long for sockets.
    with tempfile.TemporaryDirectory(prefix="assay-", dir="/tmp") as folder:
        monkeypatch.setenv("ASSAY_STATE", folder)
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.setattr("assay.engine.find.DEFAULT_HOST", f"unix://{folder}/none.sock")
        yield Path(folder)
        private.stop()
        # The SDK leaves the socket of a call to a dead engine to the garbage collector: not in a later test, please.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture
def private_engine(state: Path) -> Iterator[Engine]:
    """An engine of its own, for tests that hurt it, with the tiny image inside."""
    engine = Engine.connect()
    engine.import_tar(tiny.root_tar(), BASE)
    yield engine
    engine.close()
