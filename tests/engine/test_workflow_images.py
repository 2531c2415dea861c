"""What the workflows do with images on a runner. On a private engine, as one of their steps removes some."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from assay.engine import Engine, private
from assay.row_build import COMPOSED_LABEL

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import workflow_steps

PRUNE = "docker image prune --force --filter label=io.assay.composed"


def build(engine: Engine, folder: Path, turn: str, labels: dict[str, str], tag: str) -> str:
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY Dockerfile /\nENV TURN={turn}\n")
    log = folder.with_suffix(".log")
    return engine.build(folder, dockerfile="Dockerfile", tag=tag, labels=labels, network="none", log=log)


@pytest.mark.engine
def test_an_image_that_lost_its_name_to_a_newer_one_goes_and_nothing_else_does(
    tmp_path: Path, private_engine: Engine
) -> None:
    if shutil.which("docker") is None:
        pytest.skip("needs the client `docker`")
    assert PRUNE in workflow_steps.run_lines("build-matrix.yml")
    assert f"label={COMPOSED_LABEL}" in PRUNE
    context = tmp_path / "context"
    context.mkdir()
    foreign = build(private_engine, context, "1", {}, "assay-test/foreign:latest")
    build(private_engine, context, "2", {}, "assay-test/foreign:latest")
    first = build(private_engine, context, "3", {COMPOSED_LABEL: "sha256:1"}, "assay/row:latest")
    second = build(private_engine, context, "4", {COMPOSED_LABEL: "sha256:2"}, "assay/row:latest")
    done = workflow_steps.run(PRUNE, tools=tmp_path, environment={"DOCKER_HOST": private.host()})
    assert done.returncode == 0, done.stderr
    assert private_engine.find_image(first) is None
    assert private_engine.image_id("assay/row:latest") == second
    assert private_engine.find_image(foreign) is not None, "another tool's image, which has no name either"
