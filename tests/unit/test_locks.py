"""Writing locks: which ones, what they keep, and what is said of a torch that the package index does not have."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from assay import locks, pinned, releases
from assay.errors import IngredientError, UsageError
from assay.locks import Lock

TABLE = releases.load()
BUILD = TABLE.torch("2.4.0+cu121").model_copy(update={"version": "2.5.1+cu124", "lock": "torch-2.5.1-cu124"})
RELEASE = TABLE.cuda("12.4.1")
OF_THE_RELEASE = "torch==2.5.1\nnvidia-cuda-runtime-cu12==12.4.127\nnvidia-cublas-cu12==12.4.5.8\n"

# Pins what is asked for without a version at the one that its output file holds already, else at 9; says what it saw.
UV = """#!/bin/sh
cp "$3" "$SEEN/requirements.in"
cp "$5" "$SEEN/kept.txt"
printf '%s\\n' "$@" > "$SEEN/arguments"
env | grep -E '^(UV_|PIP_|SSL_)' > "$SEEN/environment"
version=$(sed -n 's/^thing==//p' "$5")
printf '# a comment\\nthing==%s\\n    --hash=sha256:0\\n' "${version:-9}" > "$5"
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for uv on PATH; the folder where it leaves what it was given."""
    folder = tmp_path / "seen"
    folder.mkdir()
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir()
    program.write_text(UV)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("SEEN", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped locks."""
    return Path(shutil.copytree(pinned.locks_dir(), tmp_path / "locks"))


LOCK = Lock(target="new/thing.txt", source="thing.in", requirements="thing\n", python="3.11")


def test_what_is_locked_stays_until_somebody_upgrades_it(seen: Path, tmp_path: Path) -> None:
    target = tmp_path / LOCK.target
    assert locks.write(LOCK, tmp_path), "it is new"
    assert target.read_text() == (
        "# Written by `nox -s lock` from thing.in for Python 3.11.\nthing==9\n    --hash=sha256:0\n"
    )
    target.write_text(target.read_text().replace("==9", "==7"))
    assert not locks.write(LOCK, tmp_path)
    assert "thing==7\n" in target.read_text()
    assert locks.write(LOCK, tmp_path, upgrade=True)
    assert "thing==9\n" in target.read_text()
    assert (seen / "kept.txt").read_text() == ""
    assert (seen / "requirements.in").read_text() == "thing\n"


def test_a_later_layer_is_bound_by_the_earlier_one_and_leaves_its_packages_out(seen: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.txt").write_text("torch==2.4.0 \\\n    --hash=sha256:1\nnumpy==2.2.6\n")
    locks.write(replace(LOCK, constraints="torch.txt"), tmp_path)
    said = (seen / "arguments").read_text().splitlines()
    assert said[said.index("--constraints") + 1] == str(tmp_path / "torch.txt")
    assert [said[n + 1] for n, word in enumerate(said) if word == "--no-emit-package"] == ["torch", "numpy"]


def test_a_lock_for_every_newer_python_says_so_and_is_for_no_single_machine(seen: Path, tmp_path: Path) -> None:
    locks.write(replace(LOCK, newer_too=True), tmp_path)
    said = (seen / "arguments").read_text().splitlines()
    assert "--universal" in said
    assert "--python-platform" not in said
    assert said[said.index("--python-version") + 1] == LOCK.python
    assert f"for Python {LOCK.python} and newer.\n" in (tmp_path / LOCK.target).read_text()
    locks.write(LOCK, tmp_path)
    said = (seen / "arguments").read_text().splitlines()
    assert "--universal" not in said
    assert "--python-platform" in said


def test_uv_gets_the_indexes_of_pip_and_its_own_go_before(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra.invalid/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.invalid/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.invalid/simple")
    for name in ("UV_INDEX_STRATEGY", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    locks.resolve("thing\n", "3.11")
    environment = (seen / "environment").read_text().splitlines()
    assert "UV_INDEX=https://extra.invalid/simple" in environment
    assert "UV_DEFAULT_INDEX=https://uv.invalid/simple" in environment
    assert not any(line.startswith("UV_INDEX_STRATEGY") for line in environment), "an index answers for its packages"


def test_an_index_that_uv_is_told_of_by_name_stays_and_those_of_pip_come_behind(
    seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in builds; the name is what its credentials hang on."""
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra.invalid/simple https://mine.invalid/simple")
    monkeypatch.setenv("UV_INDEX", "mine=https://mine.invalid/simple https://extra.invalid/simple2")
    monkeypatch.delenv("UV_EXTRA_INDEX_URL", raising=False)
    locks.resolve("thing\n", "3.11")
    (line,) = [line for line in (seen / "environment").read_text().splitlines() if line.startswith("UV_INDEX=")]
    assert line == (
        "UV_INDEX=mine=https://mine.invalid/simple https://extra.invalid/simple2 https://extra.invalid/simple"
    )


def test_locks_by_name(folder: Path) -> None:
    known = list(locks.planned(folder, TABLE))
    assert locks.chosen(known, []) == tuple(known)
    assert [lock.target for lock in locks.chosen(known, ["tools", "cuda-12.1.1"])] == ["tools.txt", "cuda-12.1.1.txt"]
    of_torch = locks.chosen(known, ["torch-2.4.0-cu121"])
    assert len(of_torch) == 6
    assert all(lock.target.startswith("torch-2.4.0-cu121/") for lock in of_torch)
    (one,) = locks.chosen(known, ["torch-2.4.0-cu121/runtime-py3.11"])
    assert one.target == "torch-2.4.0-cu121/runtime-py3.11.txt"
    with pytest.raises(UsageError, match=r"no lock 'tool'; perhaps you meant 'tools'\nno lock 'x'; "):
        locks.chosen(known, ["tool", "tools", "x"])


def with_new_build() -> releases.Releases:
    build = BUILD.model_copy(update={"cuda": "12.4", "cuda_release": "12.4.1"})
    return replace(TABLE, torches={**TABLE.torches, build.version: build})


def test_a_new_torch_is_lines_in_the_table_and_no_other_lock_is_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(requirements: str, python: str, *, constraints: Path | None = None, **how: object) -> str:
        if "torch==2.5.1+cu124" in requirements:
            raise IngredientError("there is no version of torch==2.5.1+cu124")
        assert constraints is None or constraints.is_file()
        return "diffusers==0.36.0\n" if constraints else OF_THE_RELEASE

    monkeypatch.setattr(locks, "resolve", resolve)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    said = list(locks.lock_all(["torch-2.5.1-cu124"], upgrade=False, folder=folder, table=with_new_build()))
    assert said[:3] == [
        "torch-2.5.1-cu124/torch.in: new",
        "torch-2.5.1-cu124/torch-py3.10.txt: 3 packages, new",
        "torch-2.5.1-cu124/runtime-py3.10.txt: 1 packages, new",
    ]
    assert len(said) == 7
    assert (folder / "torch-2.5.1-cu124/torch.in").read_text().splitlines()[1:] == [
        "torch==2.5.1",
        "nvidia-nvjitlink-cu12==12.4.127",
        "numpy==2.2.6",
    ]
    assert {path: path.read_bytes() for path in before} == before
    again = list(locks.lock_all(["torch-2.5.1-cu124"], upgrade=False, folder=folder, table=with_new_build()))
    assert {line.rpartition(", ")[2] for line in again} == {"unchanged"}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (
            {"2.5.1": "torch==2.5.1\nnvidia-cuda-runtime-cu12==12.1.105\n"},
            "it brings nvidia-cuda-runtime-cu12 12.1.105, not 12.4.127, which CUDA 12.4.1 has",
        ),
        ({"2.5.1": "torch==2.5.1\n"}, "torch==2.5.1 is another build: it brings no CUDA runtime of CUDA 12.4.1"),
        ({}, "torch==2.5.1: no solution"),
    ],
)
def test_a_torch_that_no_index_has_is_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Mapping[str, str], why: str
) -> None:
    def resolve(requirements: str, python: str) -> str:
        version = locks.pins(requirements)["torch"]
        if version not in found:
            raise IngredientError("no solution")
        return found[version]

    monkeypatch.setattr(locks, "resolve", resolve)
    with pytest.raises(IngredientError) as caught:
        locks.begin_torch(BUILD, RELEASE, tmp_path)
    said = str(caught.value)
    assert "torch==2.5.1+cu124: no solution" in said
    assert why in said
    assert "PIP_EXTRA_INDEX_URL or UV_INDEX, for this command and for every build of it" in said
    assert not list(tmp_path.iterdir())


def test_a_torch_of_another_index_keeps_its_local_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "resolve", lambda requirements, python: OF_THE_RELEASE)
    text = locks.begin_torch(BUILD, RELEASE, tmp_path).read_text()
    assert locks.pins(text)["torch"] == "2.5.1+cu124"


def test_a_torch_for_no_python_that_is_locked(folder: Path) -> None:
    build = BUILD.model_copy(update={"pythons": ("3.14",)})
    with pytest.raises(UsageError, match=r"2\.5\.1\+cu124 has wheels for Python 3\.14 only.*torch\.toml"):
        locks.begin_torch(build, RELEASE, folder)


def test_trouble_is_one_message_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert locks.main(["tool"]) == 2
    assert capsys.readouterr().err.startswith("assay.locks: no lock 'tool'; perhaps you meant 'tools'")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert locks.main(["tools"]) == 3
    assert capsys.readouterr().err.startswith("assay.locks: cannot lock tools.txt: uv is not on PATH; install it")
