"""Writes the hash-pinned requirements: `python -m assay.locks [NAME...]`, or `nox -s lock [-- NAME...]`.

Those under `docker/locks` go into images; `.github/requirements/publish.txt` is what the workflow's job that holds the
signing key installs. Names (`publish.txt`, `torch-2.4.0-cu121/torch-py3.11.txt`) select some of them.

A lock is a function of its `.in` file (or, for the CUDA releases, of the releases table, and for publishing, of
`pyproject.toml`) and of what the package index holds on that day. It names no index, so that each machine installs from
the one that it is configured for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli

from assay import paths, releases
from assay.errors import AssayError, IngredientError, UsageError
from assay.suggest import perhaps

PYTHONS = ("3.10", "3.11", "3.12")
"""Interpreters that locks are written for, where torch has wheels for them."""

ANY_PYTHON = "3.10"
"""For locks whose wheels suit every interpreter (`py3-none`): the oldest one resolves for all."""

PUBLISHER_PYTHON = "3.12"
"""The interpreter of the workflow's job that publishes."""

# glibc 2.28 or newer: Debian 12 and Ubuntu 22.04 both are.
PLATFORM = "x86_64-manylinux_2_28"

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")


@dataclass(frozen=True, kw_only=True)
class Lock:
    """One file to write.

    target, source: relative to the folder of the lock; `source` names what the lock is made from, for its first line.
    requirements: lines as in a requirements file.
    constraints: a lock written before this one, whose versions hold here too and whose packages are left out here:
        an earlier layer of the image brings them.
    """

    target: str
    source: str
    requirements: str
    python: str
    constraints: str | None = None


def planned(folder: Path, table: releases.Releases) -> Iterator[Lock]:
    """Yield every lock that belongs in `folder`, each after the one that it builds on."""
    for name in ("tools", "flash-attn"):
        text = (folder / f"{name}.in").read_text(encoding="utf-8")
        yield Lock(target=f"{name}.txt", source=f"{name}.in", requirements=text, python=ANY_PYTHON)
    for release in table.cudas.values():
        if release.packages:
            lines = "".join(f"{name}=={version}\n" for name, version in release.packages.items())
            yield Lock(
                target=f"cuda-{release.name}.txt",
                source="the releases table",
                requirements=lines,
                python=ANY_PYTHON,
            )
    runtime = (folder / "runtime.in").read_text(encoding="utf-8")
    for build in table.torches.values():
        torch = (folder / build.lock / "torch.in").read_text(encoding="utf-8")
        for python in (python for python in PYTHONS if python in build.pythons):
            base = f"{build.lock}/torch-py{python}.txt"
            yield Lock(target=base, source=f"{build.lock}/torch.in", requirements=torch, python=python)
            yield Lock(
                target=f"{build.lock}/runtime-py{python}.txt",
                source="runtime.in",
                requirements=runtime,
                python=python,
                constraints=base,
            )


def for_publishing(checkout: Path) -> Lock:
    """Return the lock of what `assay publish` needs, and of what installs assay itself without fetching anything."""
    project = tomli.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    # hatchling asks for `editables` only once it is at work, so nothing else names it.
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"], "editables"]
    return Lock(
        target="publish.txt",
        source="pyproject.toml",
        requirements="".join(f"{line}\n" for line in asked),
        python=PUBLISHER_PYTHON,
    )


def pins(text: str) -> dict[str, str]:
    """Return name -> version of a requirements file whose lines are all pinned with `==`."""
    matches = (_PIN.match(line) for line in text.splitlines())
    return {match["name"]: match["version"] for match in matches if match}


def write(lock: Lock, folder: Path) -> Path:
    """Resolve one lock with uv and write it.

    Raises IngredientError with uv's own message when the index cannot satisfy it, or when uv is missing.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise IngredientError("uv is not on PATH; install it with `python3 -m pip install uv`")
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.in")
        requirements.write_text(lock.requirements, encoding="utf-8")
        command = [uv, "pip", "compile", str(requirements), "--quiet", "--generate-hashes"]
        command += ["--no-config", "--no-header", "--no-annotate", "--only-binary", ":all:"]
        command += ["--python-version", lock.python, "--python-platform", PLATFORM]
        if lock.constraints:
            earlier = folder / lock.constraints
            command += ["--constraints", str(earlier)]
            for name in pins(earlier.read_text(encoding="utf-8")):
                command += ["--no-emit-package", name]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise IngredientError(f"cannot lock {lock.target}: uv says\n{answer.stderr.strip()}")
    target = folder / lock.target
    lines = answer.stdout.splitlines()
    # uv tells at the end which packages --no-emit-package left out; the first line already does.
    body = "\n".join(line for line in lines if not line.startswith("#"))
    without = f", without what {lock.constraints} holds" if lock.constraints else ""
    head = f"# Written by `nox -s lock` from {lock.source} for Python {lock.python}{without}.\n"
    target.write_text(head + body.strip() + "\n", encoding="utf-8")
    return target


def chosen(names: Sequence[str]) -> Iterator[tuple[Lock, Path]]:
    """Yield the locks of these names, or all where none is given, each with the folder that it belongs in.

    Raises UsageError for a name that no lock has.
    """
    docker = paths.docker_dir()
    locks = [(lock, docker / "locks") for lock in planned(docker / "locks", releases.load())]
    if (docker.parent / "pyproject.toml").is_file():  # a checkout, not an installed wheel
        locks.append((for_publishing(docker.parent), docker.parent / ".github" / "requirements"))
    known = [lock.target for lock, _ in locks]
    for name in names:
        if name not in known:
            raise UsageError(f"no lock is called {name!r}; {perhaps(name, known)}")
    yield from (one for one in locks if not names or one[0].target in names)


def main(names: Sequence[str]) -> int:
    """Write the locks, one line each on standard output."""
    for lock, folder in chosen(names):
        path = write(lock, folder)
        count = len(pins(path.read_text(encoding="utf-8")))
        sys.stdout.write(f"{lock.target}: {count} packages\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AssayError as trouble:
        sys.stderr.write(f"assay.locks: {trouble}\n")
        sys.exit(int(trouble.code))
