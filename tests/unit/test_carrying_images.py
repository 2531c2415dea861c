"""The program that carries images from the job that certified them to the one that publishes: how it says no.

tests/engine/test_workflow_images.py and tests/registry/test_workflow_publish.py run it with a real engine.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import workflow_steps


def carrier() -> ModuleType:
    """Return the program as a module."""
    spec = importlib.util.spec_from_file_location("images", workflow_steps.ROOT / ".github" / "images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_images_of_two_kinds_of_engine_are_refused_before_any_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an engine of the other kind they would have other ids than those that were certified."""
    for row, store in {"image-a": "classic", "image-b": "containerd"}.items():
        (tmp_path / row).mkdir()
        (tmp_path / row / "image.tar.gz").touch()
        (tmp_path / row / "store").write_text(f"{store}\n")
    assert carrier().main(["load", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("::error::these images come from engines that keep images in two ways ")
    assert "(image-a: classic, image-b: containerd)" in said
    assert '{"features": {"containerd-snapshotter": ...}} in /etc/docker/daemon.json' in said
    assert len(list(tmp_path.rglob("*.tar.gz"))) == 2


def test_no_image_at_all_is_told_and_so_is_a_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert carrier().main(["load", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith(f"::error::no image in {tmp_path}: the artefacts are gone, or ")
    assert carrier().main(["load"]) == 2
    assert "images.py save NAME FOLDER" in capsys.readouterr().err


def test_what_carrying_images_lacks_or_fails_at_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "image-a").mkdir()
    (tmp_path / "image-a" / "image.tar.gz").touch()
    assert carrier().main(["load", str(tmp_path)]) == 1
    assert f"::error::{tmp_path}/image-a/store is not there, and" in capsys.readouterr().out
    (tmp_path / "image-a" / "store").write_text("classic\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert carrier().main(["load", str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("::error::docker is not there, and ")
    (tmp_path / "docker").write_text("#!/bin/sh\necho no engine >&2\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    assert carrier().main(["load", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "::error::`docker info --format {{json .DriverStatus}}` failed: see above\n"


@pytest.mark.parametrize(("store", "switch"), [("containerd", True), ("classic", False)])
def test_an_engine_gets_the_other_image_store_and_keeps_its_other_settings(store: str, switch: bool) -> None:
    images = carrier()
    assert json.loads(images.configured("", store)) == {"features": {"containerd-snapshotter": switch}}
    before = {"registry-mirrors": ["https://mirror.invalid"], "features": {"cdi": True, "containerd-snapshotter": None}}
    after = json.loads(images.configured(json.dumps(before), store))
    assert after == {**before, "features": {"cdi": True, "containerd-snapshotter": switch}}
