"""The locks: complete, hash-pinned, of the versions that the releases table names, and free of host names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from assay import releases
from assay.errors import UsageError
from assay.locks import Lock, chosen, for_publishing, pins, planned

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "docker/locks"
TABLE = releases.load()
LOCKS = {lock.target: lock for lock in planned(FOLDER, TABLE)}


def read(target: str) -> str:
    return (FOLDER / target).read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS.keys())
def test_every_lock_is_there_and_every_line_has_hashes(lock: Lock) -> None:
    complete(read(lock.target))


def complete(text: str) -> None:
    entries = re.split(r"\n(?=\S)", text.strip())[1:]
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.+]+( ; .+?)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    assert "://" not in text


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS.keys())
def test_what_is_asked_for_with_a_version_is_locked_at_it(lock: Lock) -> None:
    asked = pins(lock.requirements)
    locked = pins(read(lock.target))
    if lock.constraints:
        locked |= pins(read(lock.constraints))
    assert {name: locked.get(name) for name in asked} == asked


def test_the_job_that_publishes_installs_what_assay_asks_for_by_hash() -> None:
    lock = for_publishing(CHECKOUT)
    text = (CHECKOUT / ".github/requirements" / lock.target).read_text(encoding="utf-8")
    complete(text)
    locked = pins(text)
    for line in lock.requirements.splitlines():
        asked = Requirement(line)
        assert asked.name in locked, f"{asked.name}: run `nox -s lock -- publish.txt`"
        assert asked.specifier.contains(locked[asked.name])
    assert {"hatchling", "editables"} <= set(locked)
    workflow = (CHECKOUT / ".github/workflows/build-matrix.yml").read_text(encoding="utf-8")
    assert f'python-version: "{lock.python}"' in workflow.partition("\n  publish:\n")[2]


def test_locks_are_written_by_their_names() -> None:
    every = [*LOCKS.values(), for_publishing(CHECKOUT)]
    assert chosen(every, []) == tuple(every)
    (one,) = chosen(every, ["publish.txt"])
    assert one.folder == CHECKOUT / ".github/requirements"
    with pytest.raises(UsageError, match=r"'tool'; perhaps you meant 'tools'"):
        chosen(every, ["tool.txt"])


def test_no_lock_is_left_over() -> None:
    assert {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.txt")} == set(LOCKS)


@pytest.mark.parametrize("target", [name for name, lock in LOCKS.items() if lock.constraints])
def test_a_layer_does_not_install_what_an_earlier_one_did(target: str) -> None:
    base = LOCKS[target].constraints
    assert base is not None
    assert not set(pins(read(target))) & set(pins(read(base)))


def test_torch_brings_the_libraries_of_its_release() -> None:
    """Its wheel pins all but nvJitLink; unpinned, that one would be of a newer release."""
    build = TABLE.torch("2.4.0+cu121")
    release = TABLE.cuda(build.cuda_release)
    locked = pins(read(f"{build.lock}/torch-py3.11.txt"))
    for package in (
        "nvidia-cuda-runtime-cu12",
        "nvidia-nvjitlink-cu12",
        "nvidia-cublas-cu12",
        "nvidia-cuda-nvrtc-cu12",
    ):
        assert locked[package] == release.packages[package]


def test_the_runtime_stays_below_the_versions_that_break_on_torch_2_4() -> None:
    locked = pins(read("torch-2.4.0-cu121/runtime-py3.11.txt"))
    assert locked["diffusers"] == "0.36.0"
    assert locked["transformers"] == "4.57.6"
