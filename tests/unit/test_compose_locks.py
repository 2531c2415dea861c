"""The locks: complete, hash-pinned, of the versions that the releases table names, and free of host names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from assay import releases
from assay.errors import UsageError
from assay.locks import Lock, chosen, for_workflows, pins, planned

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


WORKFLOWS = {lock.target: lock for lock in for_workflows(CHECKOUT)}


@pytest.mark.parametrize("lock", WORKFLOWS.values(), ids=WORKFLOWS.keys())
def test_workflows_install_what_assay_asks_for_by_hash(lock: Lock) -> None:
    text = (CHECKOUT / ".github/requirements" / lock.target).read_text(encoding="utf-8")
    complete(text)
    locked = [Requirement(line.rstrip(" \\")) for line in text.splitlines() if "==" in line]
    for line in lock.requirements.splitlines():
        asked = Requirement(line)
        found = [one for one in locked if one.name == asked.name]
        assert found, f"{asked.name}: run `nox -s lock -- {lock.target}`"
        for one in found:
            (version,) = one.specifier
            assert asked.specifier.contains(version.version), f"{one}: run `nox -s lock -- {lock.target}`"
    assert {"hatchling", "editables"} <= {one.name for one in locked}


def test_the_job_that_publishes_has_the_python_that_its_list_is_for() -> None:
    workflow = (CHECKOUT / ".github/workflows/build-matrix.yml").read_text(encoding="utf-8")
    assert f'python-version: "{WORKFLOWS["publish.txt"].python}"' in workflow.partition("\n  publish:\n")[2]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_list_of_the_sessions_has_one_version_of_each_package_for_every_python(python: str) -> None:
    text = (CHECKOUT / ".github/requirements/sessions.txt").read_text(encoding="utf-8")
    lines = [Requirement(line.rstrip(" \\")) for line in text.splitlines() if "==" in line]
    environment = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    here = [one.name for one in lines if one.marker is None or one.marker.evaluate(environment)]
    assert len(here) == len(set(here))
    assert {Requirement(line).name for line in WORKFLOWS["sessions.txt"].requirements.splitlines()} <= set(here)


def test_the_sessions_name_nothing_that_their_list_does_not_hold() -> None:
    """What a noxfile installs beside the extras of pyproject.toml has to be among them for the workflows."""
    named = re.findall(r'"([a-z][a-z0-9-]+==[^"]+)"', (CHECKOUT / "noxfile.py").read_text(encoding="utf-8"))
    text = (CHECKOUT / ".github/requirements/sessions.txt").read_text(encoding="utf-8")
    for one in named:
        assert f"\n{one} \\\n" in f"\n{text}", f"{one}: add it to the extra `lint`, then `nox -s lock -- sessions.txt`"


def test_locks_are_written_by_their_names() -> None:
    every = [*LOCKS.values(), *WORKFLOWS.values()]
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
