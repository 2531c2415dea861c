"""The Python packages: the interpreter that the row names, the versions that its locks name, every requirement met."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import all_suffixes
from typing import Any

from .distributions import Distributions, elsewhere, installed, normalised
from .framework import Answer, Expect, check, failed, passed

# What a virtual environment or the flash-attn part brings besides the locks.
OUTSIDE_THE_LOCKS = {"pip", "setuptools", "wheel", "flash-attn"}
# Python finds these in its own library first, whatever a package brings (a backport, say). Python 3.9 has no list.
STDLIB = frozenset(getattr(sys, "stdlib_module_names", ()))


@check(
    "python.version",
    "Is `python` on PATH the interpreter that the row names?",
    applies=lambda expect: bool(expect.raw.get("python")),
)
def python_version(expect: Expect) -> Answer:
    """The runner was started as `python`, so this interpreter is the one on PATH."""
    wanted = expect["python"]
    measured = ".".join(str(part) for part in sys.version_info[:3])
    required = f"python on PATH is Python {wanted}"
    if measured.split(".")[: len(wanted.split("."))] != wanted.split("."):
        return failed(required, f"{sys.executable} is Python {measured}")
    return passed(required, f"{sys.executable} is Python {measured}")


@check(
    "packages.consistent",
    "Is every package the locked version, and every requirement of every package met?",
)
def consistent(expect: Expect) -> Answer:
    """Compare the installed metadata with the locks, and evaluate every requirement with its markers and extras."""
    # A base that brings torch brings packages that no lock names, but what the row adds to them is known.
    complete = bool(expect["torch"]["locked"])
    pinned = {**expect["torch"]["locked"], **expect["requirements"]}
    locked = {normalised(name): version for name, version in pinned.items()}
    required = (
        f"the {len(locked)} locked packages at their versions, and every requirement met"
        if locked
        else "every requirement of every installed package met"
    )
    packages, problems = installed()
    problems += different_from_lock(packages, locked, complete=complete)
    if complete:
        problems += [
            f"{normalised(distribution.metadata['Name'])} {distribution.version} is installed in {folder}, "
            "where no lock installs anything"
            for distribution, folder in elsewhere()
        ]
    try:
        problems += list(unmet(packages))
    except ImportError as error:
        return Answer("error", required, "requirements cannot be evaluated", str(error))
    versions = {name: distribution.version for name, distribution in sorted(packages.items())}
    if problems:
        return failed(
            required, f"problems: {len(problems)}, such as {problems[0]}", "\n".join(problems), versions=versions
        )
    return passed(required, f"{len(packages)} packages, all requirements met", versions=versions)


@check(
    "packages.imported",
    "Is what Python imports under each package's name the installed package, and nothing that lies before it?",
)
def imported(expect: Expect) -> Answer:
    """Ask Python's own finders, which run nothing of a top-level module, for every name that a package brings.

    PYTHONPATH, a stray .pth file, or a file in the working directory can put other code before what was installed;
    whatever is known of the installed files then says nothing about what runs. As for a user's script, the working
    directory comes first.
    """
    required = "each name that an installed package brings is found where that package is installed"
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds text
    packages, _ = installed()
    problems, names = [], 0
    for name, distribution in sorted(packages.items()):
        root = os.path.realpath(str(distribution.locate_file("")))
        for module in sorted(top_level(distribution)):
            names += 1
            found = where(module)
            if not any(place.startswith(f"{root}/") for place in found):
                there = ", ".join(found) or "nowhere"
                problems.append(f"{module} of {name} is in {root}, and Python finds it {there}")
    if problems:
        return failed(
            required, f"problems: {len(problems)} of {names} names, such as {problems[0]}", "\n".join(problems)
        )
    return passed(required, f"{names} names of {len(packages)} packages, each found where it is installed")


def top_level(distribution: metadata.Distribution) -> set[str]:
    """Return the names under which a distribution's files are imported: its top-level packages and modules."""
    names = set()
    for file in distribution.files or ():
        first, *rest = file.parts
        name = first if rest else next((first[: -len(end)] for end in all_suffixes() if first.endswith(end)), "")
        importable = not rest or file.suffix in (".py", ".so")
        if name.isidentifier() and importable and name not in STDLIB and name != "__pycache__":
            names.add(name)
    return names


def where(module: str) -> list[str]:
    """Return the real paths of the file, or for a namespace package of the folders, that Python finds for a name."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    if spec.origin and spec.has_location:
        return [os.path.realpath(spec.origin)]
    return [os.path.realpath(folder) for folder in spec.submodule_search_locations or ()]


def different_from_lock(packages: Distributions, locked: dict[str, str], *, complete: bool) -> list[str]:
    """Return a line per locked package that is absent or another version, and per package that no lock names.

    complete: the locks name every package that there should be.
    """
    problems = []
    for name, version in sorted(locked.items()):
        if name not in packages:
            problems.append(f"{name} {version} is locked but not installed")
        elif not same_version(packages[name].version, version):
            problems.append(f"{name} is {packages[name].version}, locked is {version}")
    if complete:
        unlocked = sorted(set(packages) - set(locked) - OUTSIDE_THE_LOCKS)
        problems += [f"{name} {packages[name].version} is installed but in no lock" for name in unlocked]
    return problems


def same_version(one: str, other: str) -> bool:
    """Say whether two versions are one, as installers compare them: `2.0` is `2.0.0`, `2024.07.04` is `2024.7.4`.

    Without their local parts: torch's wheel `2.4.0+cu121` calls itself 2.4.0 in its metadata.
    """
    texts = one.partition("+")[0], other.partition("+")[0]
    if texts[0] == texts[1]:
        return True
    try:
        version = _packaging("version").Version
        return bool(version(texts[0]) == version(texts[1]))
    except (ImportError, ValueError):  # nothing to read them with, or no version as PEP 440 has them
        return False


def unmet(packages: Distributions) -> Iterator[str]:
    """Yield a line per requirement that is not met, of every distribution and of the extras that others ask of it.

    Raises ImportError when the image holds no copy of `packaging`, the reference reader of requirements.
    """
    requirements = _packaging("requirements")
    asked: list[tuple[str, str]] = [(name, "") for name in sorted(packages)]
    seen = set(asked)
    while asked:
        name, extra = asked.pop(0)
        for text in packages[name].requires or []:
            try:
                requirement = requirements.Requirement(text)
            except requirements.InvalidRequirement as error:
                yield f"{name} has a requirement that cannot be read: {text!r} ({error})"
                continue
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            if extra and not (requirement.marker and "extra" in str(requirement.marker)):
                continue  # asked already, without the extra
            needed = normalised(requirement.name)
            if needed not in packages:
                yield f"{name} requires {text}, which is not installed"
                continue
            version = packages[needed].version
            if not requirement.specifier.contains(version, prereleases=True):
                yield f"{name} requires {text}, but {needed} is {version}"
            for wanted in requirement.extras:
                if (needed, wanted) not in seen:
                    seen.add((needed, wanted))
                    asked.append((needed, wanted))


def _packaging(module: str) -> Any:
    for package in ("packaging", "pip._vendor.packaging", "setuptools._vendor.packaging"):
        try:
            return importlib.import_module(f"{package}.{module}")
        except ImportError:
            continue
    raise ImportError("this image has no copy of `packaging` (its own, pip's or setuptools'), add it to the row's lock")
