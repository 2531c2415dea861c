"""What is pinned under `docker/`: the locks by their names, flash-attn's sources and the compilers for it.

Reads files and knows no row, so that the rules of the matrix and the builds ask the same questions of the same place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from assay import paths
from assay.errors import IngredientError
from assay.releases import CudaRelease, TorchBuild
from assay.suggest import perhaps

FLASH_ATTN = "flash-attn"
"""Folder under `docker/` with what the builder stage of flash-attn uses."""


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
    return path.read_text(encoding="utf-8").rpartition("--hash=sha256:")[2].strip()


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
