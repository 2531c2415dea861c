"""A row's own packages and instructions on a real engine: they are in the image, and a step that fails is named `own`.

The rows are those of the example without torch, so that a test takes seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assay import base, matrix
from assay.compose import compose
from assay.engine import Engine
from assay.errors import BuildFailed
from assay.matrix.row import FlashAttn, Row
from assay.network import NetworkSettings

pytestmark = pytest.mark.engine

EXAMPLE = Path(__file__).parents[2] / "examples/own-image"
NETWORK = "RUN --mount=type=bind,source=network,target=/run/network sh /run/network/run.sh touch /opt/app/settings\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the example."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example"))


@pytest.fixture
def build(engine: Engine, folder: Path, tmp_path: Path, name: str) -> Callable[[], str]:
    """Build the example's row as it is now; its image goes again afterwards."""
    network = NetworkSettings.from_host()
    base.ensure(engine, "debian:bookworm", network, on_event=lambda event: None)

    def build_now() -> str:
        (row,) = matrix.load(folder / "matrix.toml").rows
        composed = compose(small(row), out=tmp_path / "out", network=network, wheel=None, files_from=folder)
        return engine.build(
            composed.folder,
            tag=name,
            labels={},
            build_args=composed.build_args,
            network="host",
            cancel=None,
            on_event=lambda event: None,
            log=tmp_path / "build.log",
        )

    return build_now


def small(row: Row) -> Row:
    """The row on a base that brings its Python, with nothing but what it adds."""
    return replace(row, torch="base", toolkit="none", runtime="none", flash_attn=FlashAttn(source="none"))


def test_packages_files_and_command_are_in_the_image(engine: Engine, build: Callable[[], str], folder: Path) -> None:
    with (folder / "own.dockerfile").open("a") as fragment:
        fragment.write(NETWORK)
    image = build()
    lines: list[str] = []
    command = (
        "import bottle, os; "
        "print(bottle.__version__, *sorted(os.listdir('/opt/app')), os.path.exists('/run/network/run.sh'))"
    )
    result = engine.run(image, ["python", "-c", command], on_line=lines.append, timeout=60)
    assert result.exit_code == 0, lines
    assert lines == ["0.13.4 serve.py settings False"]
    assert engine.client.images.get(image).attrs["Config"]["Cmd"] == ["python", "/opt/app/serve.py"]
    assert engine.inspect(image).labels["io.assay.row"] == "serve"


def test_a_failing_step_of_its_own_is_named_so(build: Callable[[], str], folder: Path) -> None:
    (folder / "own.dockerfile").write_text("RUN true\nRUN echo out of luck && false\n")
    with pytest.raises(BuildFailed) as failure:
        build()
    assert failure.value.part == "own"
    assert any("out of luck" in line for line in failure.value.log)


def test_a_wheel_that_is_not_the_pinned_one_is_not_installed(build: Callable[[], str], folder: Path) -> None:
    lock = folder / "requirements.txt"
    lock.write_text(lock.read_text().replace("sha256:0", "sha256:1").replace("sha256:7", "sha256:8"))
    with pytest.raises(BuildFailed) as failure:
        build()
    assert failure.value.part == "requirements"
    assert any("hash" in line.lower() for line in failure.value.log)
