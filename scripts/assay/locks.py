"""Write the hash-pinned requirements: `nox -s lock -- [NAME...]`, or `python -m assay.locks`.

Those under `docker/locks` go into images. Those under `.github/requirements` are all that the workflows install:
`sessions.txt` what nox and the sessions do, `publish.txt` what the job that holds the signing key does. NAME is a lock
(`tools`, `cuda-12.1.1`, `publish.txt`) or a folder of them (`torch-2.4.0-cu121`); without one, all are written. What a
lock holds already stays as it is where that still suits, so that writing it again changes nothing without need: a
changed lock of an image voids certificates. `--upgrade` takes the newest versions instead.

A lock is a function of its `.in` file (for the CUDA releases: of the releases table; for the workflows: of
`pyproject.toml`), of what it held before, and of what the package index holds on that day. It names no index, so that
each machine installs from the one that it is configured for: pip's and uv's own settings, PIP_EXTRA_INDEX_URL and
UV_INDEX among them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli

from assay import paths, pinned, releases
from assay.errors import AssayError, ExitCode, IngredientError, UsageError
from assay.files import write_atomically
from assay.releases import CudaRelease, TorchBuild
from assay.resolve import pins, resolve
from assay.suggest import perhaps

PYTHONS = ("3.10", "3.11", "3.12")
"""Interpreters that locks are written for, where torch has wheels for them."""

ANY_PYTHON = "3.10"
"""For locks that hold for every interpreter: the oldest one resolves for all."""

PUBLISHER_PYTHON = "3.12"
"""The interpreter of the workflow's job that publishes."""

# For a torch whose requirements nobody has written yet: the last numpy that runs on the oldest Python of PYTHONS.
NUMPY = "2.2.6"


@dataclass(frozen=True, kw_only=True)
class Lock:
    """One file to write.

    target, source: relative to the lock's folder; `source` names what the lock is made from, for its first line.
    folder: where it lies, None for the locks folder. requirements: lines as in a requirements file.
    newer_too: for every newer Python as well: where these need something else, a line says for which it is.
    constraints: a lock written before this one, whose versions hold here too and whose packages are left out here:
        an earlier layer of the image brings them.
    """

    target: str
    source: str
    requirements: str
    python: str
    constraints: str | None = None
    folder: Path | None = None
    newer_too: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What it goes by on the command line: itself, and the folder that it is in."""
        name = self.target.removesuffix(".txt")
        return (name.partition("/")[0], name) if "/" in name else (name,)


def planned(folder: Path, table: releases.Releases) -> Iterator[Lock]:
    """Yield every lock that belongs in `folder`, each after the one that it builds on."""
    for name in ("tools", "flash-attn"):
        text = (folder / f"{name}.in").read_text(encoding="utf-8")
        yield Lock(target=f"{name}.txt", source=f"{name}.in", requirements=text, python=ANY_PYTHON)
    for release in table.cudas.values():
        if release.packages:
            lines = "".join(f"{name}=={version}\n" for name, version in release.packages.items())
            yield Lock(
                target=pinned.cuda_lock(release),
                source="the releases table",
                requirements=lines,
                python=ANY_PYTHON,
            )
    runtime = (folder / "runtime.in").read_text(encoding="utf-8")
    for build in table.torches.values():
        own = _torch_in(build, folder)
        release = table.cuda(build.cuda_release)
        torch = own.read_text(encoding="utf-8") if own.is_file() else torch_requirements(build, release, build.version)
        for python in _pythons(build):
            base = pinned.torch_lock(build, python)
            yield Lock(target=base, source=f"{build.lock}/torch.in", requirements=torch, python=python)
            yield Lock(
                target=pinned.runtime_lock(build, python),
                source="runtime.in",
                requirements=runtime,
                python=python,
                constraints=base,
            )


def for_workflows(checkout: Path) -> tuple[Lock, ...]:
    """Return the locks of what the workflows install: `publish.txt`, and `sessions.txt` for everything else.

    Each holds what builds assay itself besides, so that installing a checkout fetches nothing.
    """
    project = tomli.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    # hatchling asks for `editables` only once it is at work, so nothing else names it.
    assay = [*project["project"]["dependencies"], *project["build-system"]["requires"], "editables"]
    extras = project["project"]["optional-dependencies"]
    folder = checkout / ".github" / "requirements"
    return (
        Lock(
            target="publish.txt",
            source="pyproject.toml",
            requirements=_lines(assay),
            python=PUBLISHER_PYTHON,
            folder=folder,
        ),
        Lock(
            target="sessions.txt",
            source="pyproject.toml",
            requirements=_lines([*assay, *extras["test"], *extras["lint"]]),
            python=ANY_PYTHON,
            folder=folder,
            newer_too=True,
        ),
    )


def _lines(requirements: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in requirements)


def torch_requirements(build: TorchBuild, release: CudaRelease, version: str) -> str:
    """Return what the releases table says of a torch build, as requirements; its wheel says the rest.

    version: of the wheel in the index: `2.4.0+cu121`, or `2.4.0` where that is the name of the same build.
    """
    lines = [
        f"# From the releases table, for torch {build.version}. Correct it where this torch needs something else.",
        f"torch=={version}",
    ]
    # torch 2.4 leaves this one unpinned, and it arrives through cuSPARSE and cuSOLVER in a newer release's version.
    lines += [f"{name}=={found}" for name, found in release.packages.items() if name.startswith("nvidia-nvjitlink")]
    return "\n".join([*lines, f"numpy=={NUMPY}", ""])


def begin_torch(build: TorchBuild, release: CudaRelease, folder: Path) -> Path:
    """Write the `torch.in` of a build that has none yet, after a look at what the index has by that name.

    The default index has one build of each torch version, without a local version; other indexes have others, with one.
    Raises IngredientError when neither name leads to a torch for the build's CUDA release.
    """
    why: list[str] = []
    for version in (build.version, build.version.partition("+")[0]):
        text = torch_requirements(build, release, version)
        try:
            found = pins(resolve(text, _pythons(build)[0]))
        except IngredientError as error:
            why.append(f"torch=={version}: {error}")
            continue
        if foreign := _foreign(found, release):
            why.append(f"torch=={version} is another build: {foreign}")
            continue
        target = _torch_in(build, folder)
        write_atomically(target, text)
        return target
    raise IngredientError(
        f"no torch {build.version} in the package indexes of this machine.\n"
        + "\n".join(why)
        + "\nName an index that has it in PIP_EXTRA_INDEX_URL or UV_INDEX, for this command and for every build of it; "
        f"or correct releases/torch.toml; or write {_torch_in(build, folder)} yourself"
    )


def _foreign(found: Mapping[str, str], release: CudaRelease) -> str:
    """Say how the CUDA packages that a torch brings differ from a release's, nothing where they are the release's."""
    wanted = {name: version for name, version in release.packages.items() if name in found}
    differ = [f"{name} {found[name]}, not {version}" for name, version in wanted.items() if found[name] != version]
    if differ:
        return f"it brings {', '.join(differ)}, which CUDA {release.name} has"
    if release.packages and not any(name.startswith("nvidia-cuda-runtime") for name in wanted):
        return f"it brings no CUDA runtime of CUDA {release.name}"
    return ""


def _torch_in(build: TorchBuild, folder: Path) -> Path:
    return folder / build.lock / "torch.in"


def _pythons(build: TorchBuild) -> tuple[str, ...]:
    """Return the Pythons that a torch build is locked for.

    Raises UsageError where its wheels suit none of those that assay locks for.
    """
    pythons = tuple(python for python in PYTHONS if python in build.pythons)
    if not pythons:
        raise UsageError(
            f"torch {build.version} has wheels for Python {', '.join(build.pythons)} only, and assay locks for "
            f"{', '.join(PYTHONS)}: correct releases/torch.toml, or add the Python to PYTHONS in {__file__}"
        )
    return pythons


def write(lock: Lock, folder: Path, *, upgrade: bool = False) -> bool:
    """Write one lock, and tell whether that changed it. Raises IngredientError when it cannot be resolved."""
    target = (lock.folder or folder) / lock.target
    before = target.read_text(encoding="utf-8") if target.is_file() else ""
    constraints = folder / lock.constraints if lock.constraints else None
    try:
        body = resolve(
            lock.requirements,
            lock.python,
            constraints=constraints,
            keep="" if upgrade else before,
            newer_too=lock.newer_too,
        )
    except IngredientError as error:
        raise IngredientError(f"cannot lock {lock.target}: {error}") from error
    without = f", without what {lock.constraints} holds" if lock.constraints else ""
    pythons = f"{lock.python} and newer" if lock.newer_too else lock.python
    head = f"# Written by `nox -s lock` from {lock.source} for Python {pythons}{without}.\n"
    write_atomically(target, head + body)
    return head + body != before


def chosen(locks: Sequence[Lock], names: Sequence[str]) -> tuple[Lock, ...]:
    """Return the locks of these names in their order; all of them when none is named.

    Raises UsageError that names every one that does not exist.
    """
    known = {name for lock in locks for name in lock.names}
    names = [name.removesuffix(".txt") for name in names]
    if unknown := [name for name in dict.fromkeys(names) if name not in known]:
        raise UsageError(
            "\n".join(f"no lock {name!r}; {perhaps(name, known)}" for name in unknown)
            + "\nA new one belongs to a new table in releases/cuda.toml or releases/torch.toml"
        )
    return tuple(lock for lock in locks if not names or set(names) & set(lock.names))


def lock_all(names: Sequence[str], *, upgrade: bool, folder: Path, table: releases.Releases) -> Iterator[str]:
    """Write the locks of these names, and yield a line about each."""
    checkout = paths.docker_dir().parent
    workflows = for_workflows(checkout) if (checkout / "pyproject.toml").is_file() else ()  # not in a wheel
    wanted = {lock.target for lock in chosen([*planned(folder, table), *workflows], names)}
    for build in table.torches.values():
        mine = {pinned.torch_lock(build, python) for python in _pythons(build)}
        if wanted & mine and not _torch_in(build, folder).is_file():
            yield f"{begin_torch(build, table.cuda(build.cuda_release), folder).relative_to(folder)}: new"
    for lock in (*planned(folder, table), *workflows):
        if lock.target in wanted:
            path = (lock.folder or folder) / lock.target
            is_new = not path.is_file()
            changed = write(lock, folder, upgrade=upgrade)
            count = len(pins(path.read_text(encoding="utf-8")))
            yield f"{lock.target}: {count} packages, {'new' if is_new else 'changed' if changed else 'unchanged'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the locks that the command line names, one line each on standard output. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m assay.locks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these locks (default: all)")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions, not those that are locked")
    args = parser.parse_args(arguments)
    try:
        for line in lock_all(args.names, upgrade=args.upgrade, folder=pinned.locks_dir(), table=releases.load()):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    except AssayError as error:
        sys.stderr.write(f"assay.locks: {error}\n")
        return int(error.code)
    return int(ExitCode.AS_EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
