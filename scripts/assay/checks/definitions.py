"""Reads the definitions of the checks from `docker/checks`: the same files that are mounted into an image run there."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from assay import releases
from assay.checks.expectations import expectation
from assay.errors import AssayError
from assay.findings import Level
from assay.matrix.row import Row
from assay.paths import docker_dir

JUDGING = (
    "checks/definitions.py",
    "checks/expectations.py",
    "checks/run.py",
    "compose/context.py",
    "engine/containers.py",
    "findings.py",
    "pinned.py",
    "requirements.py",
    "verdict.py",
)
"""Files of this package that decide what is asked, in what surroundings, and what an answer amounts to."""

PACKAGE = "assay_checks"
"""The name under which the host loads `docker/checks`; in an image it is `checks`."""


class Check(Protocol):
    """One question put to an image, as `docker/checks/framework.py` defines it."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def question(self) -> str: ...  # noqa: D102
    @property
    def needs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def level(self) -> str: ...  # noqa: D102
    @property
    def timeout(self) -> float: ...  # noqa: D102
    @property
    def function(self) -> Any: ...  # noqa: D102


def folder() -> Path:
    """Return the folder of the checks, which is mounted into the image under test."""
    return docker_dir() / "checks"


@functools.lru_cache(maxsize=1)
def registry() -> Mapping[str, Check]:
    """Return every check by its id.

    Raises AssayError when a family of checks is missing or cannot be imported, or its needs make no sense: running
    without it would certify images that nobody asked the question.
    """
    load_package()
    families = importlib.import_module(f"{PACKAGE}.families")
    if missing := [f"{name}.py" for name in families.FAMILIES if not (folder() / f"{name}.py").is_file()]:
        raise AssayError(
            f"{folder()} lacks {', '.join(missing)}: assay's checks are not installed completely; install it again"
        )
    if families.BROKEN:
        told = "\n".join(f"{name}.py: {trace.strip().splitlines()[-1]}" for name, trace in families.BROKEN.items())
        raise AssayError(f"checks in {folder()} cannot be imported; mend them before running anything:\n{told}")
    checks: Mapping[str, Check] = importlib.import_module(f"{PACKAGE}.framework").REGISTRY
    problems = importlib.import_module(f"{PACKAGE}.order").problems(checks)
    if problems:
        raise AssayError(f"the checks in {folder()} do not fit together:\n" + "\n".join(problems))
    return checks


def load_package() -> ModuleType:
    """Load `docker/checks` under its host name, once. Raises AssayError when the folder holds no package."""
    if PACKAGE in sys.modules:
        return sys.modules[PACKAGE]
    start = folder() / "__init__.py"
    spec = importlib.util.spec_from_file_location(PACKAGE, start, submodule_search_locations=[str(folder())])
    if spec is None or spec.loader is None or not start.is_file():
        raise AssayError(f"{start} is missing: assay's checks are not installed completely; install it again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)
    return module


def selected(raw: Mapping[str, Any], level: Level) -> list[Check]:
    """Return the checks of a row at a level, each after its needs. raw: the row's `expectation`."""
    checks = registry()
    expect = importlib.import_module(f"{PACKAGE}.framework").Expect(dict(raw))
    found: list[Check] = importlib.import_module(f"{PACKAGE}.order").selected(checks, expect, level.value)
    return found


def required(row: Row, level: Level) -> tuple[str, ...]:
    """Return the ids of the checks that must pass for a row to be certified at a level.

    Which checks belong to a row depends on the row alone, not on the wheel, the GPU or the seed of a run.
    """
    raw = expectation(row, level=level, wheel=None, releases=_releases(), gpu=None, seed=0)
    return tuple(check.id for check in selected(raw, level))


def digest() -> str:
    """Return the sha256 of everything that a verdict hangs on, names and contents, without Python's caches.

    That is all of `docker/checks`, and the files of this package that tell the checks what to expect and judge them.
    """
    total = hashlib.sha256()
    package = Path(__file__).parents[1]
    for name in JUDGING:
        total.update(f"{name}\0{hashlib.sha256((package / name).read_bytes()).hexdigest()}\n".encode())
    for path in sorted(folder().rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(folder()).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


@functools.lru_cache(maxsize=1)
def _releases() -> releases.Releases:
    return releases.load()
