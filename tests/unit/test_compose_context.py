"""The folder that an image is built from: the same for the same inputs, and nothing that does not belong there."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from composing import OFFLINE, PLAIN, ROWS, stand_in

from assay.compose import Composed, compose
from assay.engine.context import pack
from assay.errors import IngredientError
from assay.network import NetworkSettings
from assay.wheels import Wheel


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    return stand_in(tmp_path)


def image_id(composed: Composed) -> dict[str, bytes]:
    return {
        path.relative_to(composed.folder).as_posix(): path.read_bytes()
        for path in composed.folder.rglob("*")
        if path.is_file()
    }


def test_same_inputs_give_the_same_bytes(tmp_path: Path, wheel: Wheel) -> None:
    first = compose(ROWS["cu121"], out=tmp_path / "a", network=OFFLINE, wheel=wheel)
    second = compose(ROWS["cu121"], out=tmp_path / "b", network=OFFLINE, wheel=wheel)
    assert image_id(first) == image_id(second)
    assert first.digest == second.digest


def test_composing_again_leaves_nothing_of_the_last_time(tmp_path: Path, wheel: Wheel) -> None:
    compose(replace(ROWS["cu120"], id="same"), out=tmp_path, network=OFFLINE, wheel=wheel)
    again = compose(replace(PLAIN, id="same"), out=tmp_path, network=OFFLINE, wheel=None)
    fresh = compose(replace(PLAIN, id="same"), out=tmp_path / "fresh", network=OFFLINE, wheel=None)
    assert image_id(again) == image_id(fresh)


def test_the_network_of_the_machine_changes_no_digest(tmp_path: Path) -> None:
    elsewhere = NetworkSettings(index="https://index.invalid/simple", proxies={"http_proxy": "http://proxy.invalid"})
    here = compose(PLAIN, out=tmp_path / "a", network=OFFLINE, wheel=None)
    there = compose(PLAIN, out=tmp_path / "b", network=elsewhere, wheel=None)
    assert here.digest == there.digest
    assert "invalid" not in there.dockerfile.read_text()
    assert "index.invalid" in (there.folder / "network/run.sh").read_text()


def test_what_a_build_gets_of_the_network_is_readable_there_whoever_may_read_it_here(tmp_path: Path) -> None:
    """The engine caches by names, modes and contents: as they were before the folder was closed to others."""
    composed = compose(PLAIN, out=tmp_path, network=NetworkSettings(), wheel=None)
    assert (composed.folder / "network/run.sh").stat().st_mode & 0o777 == 0o600
    packed = io.BytesIO()
    pack(composed.folder, packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        modes = {member.name: member.mode for member in archive}
    assert (modes["network"], modes["network/apt"], modes["network/run.sh"]) == (0o755, 0o755, 0o644)


def test_no_password_leaves_the_network_folder(tmp_path: Path) -> None:
    elsewhere = NetworkSettings(
        index="https://bob:s3cret@index.invalid/simple", proxies={"http_proxy": "http://bob:s3cret@proxy.invalid"}
    )
    composed = compose(ROWS["cu118-compile"], out=tmp_path, network=elsewhere, wheel=None)
    holding = {name for name, content in image_id(composed).items() if b"s3cret" in content}
    assert holding == {"network/run.sh"}
    assert "s3cret" not in str(composed)


@pytest.mark.parametrize(
    "change",
    [
        {"cuda": "12.2.0"},
        {"library_path": "toolkit"},
        {"python": "3.12"},
        {"runtime": "none"},
        {"env": (("A", "b"),)},
        {"what": "something else"},
        {"base": "debian:trixie"},
    ],
)
def test_what_changes_the_image_changes_the_digest(change: dict[str, object], tmp_path: Path) -> None:
    before = compose(PLAIN, out=tmp_path, network=OFFLINE, wheel=None).digest
    assert compose(replace(PLAIN, **change), out=tmp_path, network=OFFLINE, wheel=None).digest != before


def test_an_overlay_file_that_is_not_there(tmp_path: Path) -> None:
    row = replace(PLAIN, files=(("/x", "missing.so"),))
    with pytest.raises(IngredientError, match=r"missing\.so does not exist"):
        compose(row, out=tmp_path, network=OFFLINE, wheel=None, files_from=tmp_path)


def test_the_stage_that_builds_the_wheel_takes_none_of_the_files(tmp_path: Path) -> None:
    row = replace(ROWS["cu121"], files=(("/x", "beside-the-matrix.so"),))
    composed = compose(row, out=tmp_path, network=OFFLINE, wheel=None, stop_at="flash-attn-wheel")
    assert not (composed.folder / "files").exists()


def test_a_combination_without_a_lock(tmp_path: Path) -> None:
    with pytest.raises(IngredientError, match=r"torch-2\.4\.0-cu121/torch-py3\.9\.txt.*nox -s lock"):
        compose(replace(PLAIN, python="3.9"), out=tmp_path, network=OFFLINE, wheel=None)


def test_the_log_beside_the_dockerfile_is_no_part_of_the_context(tmp_path: Path) -> None:
    ignored = (compose(PLAIN, out=tmp_path, network=OFFLINE, wheel=None).folder / ".dockerignore").read_text()
    assert ignored.splitlines()[0] == "*"
    assert "!Dockerfile" in ignored.splitlines()
    assert "!build.log" not in ignored
