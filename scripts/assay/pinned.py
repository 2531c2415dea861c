"""What is pinned under `docker/`: the locks and their packages, flash-attn's sources and the compilers for it.

Reads files and knows no row, so that the rules of the matrix and the builds ask the same questions of the same place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from assay import paths, requirements
from assay.errors import IngredientError
from assay.releases import CudaRelease, TorchBuild
from assay.requirements import Pin, Problem
from assay.suggest import perhaps

FLASH_ATTN = "flash-attn"
"""Folder under `docker/` with what the builder stage of flash-attn uses."""

PLATFORM = "x86_64-manylinux_2_28"
"""What locked wheels have to suit: glibc 2.28 or newer, which Debian 12 and Ubuntu 22.04 both are."""


def torch_lock(build: TorchBuild, python: str) -> str:
    """Return the lock of a torch build for a Python, relative to `docker/locks`."""
    return f"{build.lock}/torch-py{python}.txt"


def runtime_lock(build: TorchBuild, python: str) -> str:
    """Return the lock of the drawing pipeline's packages beside a torch build, relative to `docker/locks`."""
    return f"{build.lock}/runtime-py{python}.txt"


def cuda_lock(release: CudaRelease) -> str:
    """Return the lock of a CUDA release's own wheels, relative to `docker/locks`."""
    return f"cuda-{release.name}.txt"


def python_locks(build: TorchBuild | None, *, python: str, runtime: str, flash_attn: str) -> dict[str, str]:
    """Return the locks that are installed into an image's Python: name in the build context -> path in `docker/locks`.

    build: None where the base brings torch. runtime, flash_attn: the row's runtime, and where flash-attn comes from.
    """
    wanted = {}
    if build is not None:
        wanted["torch.txt"] = torch_lock(build, python)
        if runtime != "none":
            wanted["runtime.txt"] = runtime_lock(build, python)
    if flash_attn not in ("base", "none"):
        wanted["flash-attn.txt"] = "flash-attn.txt"
    return wanted


def locks_dir() -> Path:
    """Return the folder that locks are relative to."""
    return paths.docker_dir() / "locks"


def is_locked(*locks: str) -> bool:
    """Tell whether all these locks are there."""
    return all((locks_dir() / lock).is_file() for lock in locks)


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A pin, and the lock that holds it: a path under `docker/locks`."""

    pin: Pin
    lock: str


def locked(locks: Iterable[str]) -> dict[str, Locked]:
    """Return what locks pin, by normalised name. locks: paths under `docker/locks`.

    Raises IngredientError for a lock that is not there.
    """
    found = {}
    for lock in locks:
        path = locks_dir() / lock
        if not path.is_file():
            raise IngredientError(missing(lock))
        # A marker in one of our own locks is no problem: each is written for one interpreter.
        found.update({pin.name: Locked(pin=pin, lock=lock) for pin in requirements.read(path).pins})
    return found


def missing(lock: str) -> str:
    """Return what to say of a lock that is not there."""
    return (
        f"the lock {lock} is not in {locks_dir()}; write it with `nox -s lock`, or ask for a combination that is locked"
    )


def conflicts(pins: Iterable[Pin], held: Mapping[str, Locked], *, flash_attn: str) -> Iterator[Problem]:
    """Yield every pin that the row's own locks contradict. flash_attn: where the row's flash-attn comes from."""
    for pin in pins:
        other = held.get(pin.name)
        if pin.name == "flash-attn":
            without = ' (now: source = "none", and no check asks for it)' if flash_attn == "none" else ""
            yield (
                pin.line,
                f"which flash-attn goes into the image is said by the row's `flash-attn`{without}: leave the line out",
            )
        elif other is None:
            continue
        elif other.pin.version != pin.version:
            yield (
                pin.line,
                f"{pin.name} {pin.version} conflicts with {pin.name} {other.pin.version} of the row's own lock "
                f"docker/locks/{other.lock}: write {other.pin.version}, or leave the line out",
            )
        elif pin.hashes and not set(pin.hashes) & set(other.pin.hashes):
            yield (
                pin.line,
                f"{pin.name} {pin.version} has other hashes than in the row's own lock docker/locks/{other.lock}: "
                "take those, or leave the line out",
            )


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """An nvcc from Debian's archive, as `docker/flash-attn/nvcc/compilers.json` describes it."""

    name: str
    version: str
    suite: str
    component: str
    package: str
    package_version: str
    sha256: str
    headers: str | None
    archs: tuple[str, ...]


def compilers() -> dict[str, Compiler]:
    """Return the compilers of `compilers.json` by their names."""
    path = paths.docker_dir() / FLASH_ATTN / "nvcc" / "compilers.json"
    table = json.loads(path.read_text(encoding="utf-8"))["compilers"]
    return {name: Compiler(name=name, **{**entry, "archs": tuple(entry["archs"])}) for name, entry in table.items()}


def compiler(name: str) -> Compiler:
    """Return the compiler that the matrix names: `12.4`, or a release or version of it (`12.4.1`, `12.4.131`).

    Raises IngredientError for one that the table does not have.
    """
    known = compilers()
    found = known.get(".".join(name.split(".")[:2]))
    if found is None:
        raise IngredientError(
            f"flash-attn.nvcc {name!r}: no such compiler is known; {perhaps(name, known)}. "
            f"Another one of Debian's archive is an entry in docker/{FLASH_ATTN}/nvcc/compilers.json"
        )
    return found


def sdist_sha256(version: str) -> str:
    """Return the sha256 that the requirements file of a flash-attn version pins.

    Raises IngredientError when there is no such file: nobody has pinned that version.
    """
    folder = paths.docker_dir() / FLASH_ATTN / "source"
    path = folder / f"sdist-{version}.txt"
    if not path.is_file():
        pinned = [other.stem.removeprefix("sdist-") for other in folder.glob("sdist-*.txt")]
        raise IngredientError(
            f"flash-attn.version {version!r} cannot be compiled: docker/{FLASH_ATTN}/source/{path.name} is missing; "
            f"{perhaps(version, pinned)}. Add it with the sdist's hash, or use a wheelhouse"
        )
    (pin,) = requirements.read(path).pins
    return pin.hashes[0]


def cannot_compile(version: str, nvcc: str | None, archs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what stands against compiling flash-attn, as (key of `flash-attn`, message); nothing when nothing does.

    nvcc: the compiler's name in the matrix; None for a wheel without kernels, which needs none.
    """
    try:
        sdist_sha256(version)
    except IngredientError as error:
        yield "version", str(error)
    if nvcc is None:
        return
    try:
        known = compiler(nvcc)
    except IngredientError as error:
        yield "nvcc", str(error)
        return
    for arch in archs:
        if arch not in known.archs:
            yield (
                "archs",
                f"flash-attn.archs {arch!r}: nvcc {known.name} compiles flash-attn {version} for "
                f"{' and '.join(known.archs)} only; code for 80 also runs on GPUs of 8.6 and 8.9",
            )
