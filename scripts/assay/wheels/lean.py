"""The lean compile: which kernels, with which compiler, under which key. Pure, but for reading its own data files.

`docker/flash-attn.build.dockerfile.j2` and the scripts in `docker/flash-attn` do the work in a builder stage; here is
what the host knows of it: whether a row can be compiled at all, what must come out, and the key that it is kept under.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from assay import paths
from assay.errors import IngredientError
from assay.matrix.row import Row
from assay.pinned import FLASH_ATTN, Compiler, cannot_compile, compiler, sdist_sha256

TEMPLATE = "flash-attn.build.dockerfile.j2"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what a compiled wheel is, besides the files of the builder stage.

    compiler: None for a wheel without kernels; then head_dims, dtypes, archs and left_out are empty. base: what the
    host compiler and its headers come from. version: as the wheel will carry it, local part included. sdist_sha256: of
    the source. base_digest: where the base brings torch, of the image that its name stood for; None where nobody has
    looked, and for rows whose torch assay installs.
    """

    version: str
    sdist_sha256: str
    base: str
    python: str
    torch: str
    compiler: Compiler | None
    head_dims: tuple[int, ...]
    dtypes: tuple[str, ...]
    archs: tuple[str, ...]
    left_out: tuple[str, ...]
    base_digest: str | None = None

    @property
    def source(self) -> str:
        """Return what `Wheel.source` says of the result."""
        return "compile" if self.compiler else "skip-cuda"

    def key(self) -> str | None:
        """Return the sha256 under which the wheel is kept: of the recipe and of the builder stage's files.

        None where torch comes with a base that nobody has looked at: the base's name says nothing of what to compile
        against.
        """
        if self.torch == "base" and self.base_digest is None:
            return None
        made_from = {"recipe": self._fields(), "files": files_digest(paths.docker_dir())}
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def record(self) -> Mapping[str, Any]:
        """Return what the record beside the wheel says of how it was made."""
        nvcc = self.compiler
        return {
            **{name: value for name, value in self._fields().items() if name != "compiler"},
            "compiler": f"nvcc {nvcc.version}" if nvcc else None,
            "compiler_package": {
                "name": nvcc.package,
                "version": nvcc.package_version,
                "sha256": nvcc.sha256,
                "suite": nvcc.suite,
            }
            if nvcc
            else None,
        }

    def _fields(self) -> dict[str, Any]:
        """Return the fields that say something: a new one must not change the keys of wheels that it is not about."""
        fields = asdict(self)
        if self.base_digest is None:
            del fields["base_digest"]
        return fields


@functools.lru_cache(maxsize=1)
def kernels() -> ModuleType:
    """Return the builder stage's `kernels.py`, so that one place says what a lean wheel is."""
    path = paths.docker_dir() / FLASH_ATTN / "wheel" / "kernels.py"
    spec = importlib.util.spec_from_file_location("assay_flash_attn_kernels", path)
    if spec is None or spec.loader is None:
        raise IngredientError(f"{path} cannot be loaded; install assay again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def recipe(row: Row, base_digest: str | None = None) -> Recipe:
    """Return what the builder stage of a row makes.

    base_digest: of the image that the row's base is now, where it is known; it counts where that image brings torch.
    Raises IngredientError when the version has no pinned sdist, the compiler is unknown, or it cannot compile for an
    arch that the row asks for.
    """
    asked = row.flash_attn
    skip_cuda = asked.source == "skip-cuda"
    if problems := [
        message for _, message in cannot_compile(asked.version, None if skip_cuda else asked.nvcc, asked.archs)
    ]:
        raise IngredientError("\n".join(problems))
    nvcc = None if skip_cuda else compiler(asked.nvcc)
    head_dims, dtypes, archs = tuple(sorted(asked.head_dims)), tuple(sorted(asked.dtypes)), tuple(sorted(asked.archs))
    inside = kernels().Asked(head_dims, dtypes, archs)
    local = kernels().NO_KERNELS if skip_cuda else inside.local_version
    return Recipe(
        version=f"{asked.version}+{local}",
        sdist_sha256=sdist_sha256(asked.version),
        base=row.base,
        python=row.python,
        torch=row.torch,
        compiler=nvcc,
        head_dims=() if skip_cuda else head_dims,
        dtypes=() if skip_cuda else dtypes,
        archs=() if skip_cuda else archs,
        left_out=() if skip_cuda else tuple(feature.lower() for feature in kernels().LEFT_OUT),
        base_digest=base_digest if row.torch == "base" else None,
    )


def build_files(docker: Path) -> tuple[Path, ...]:
    """Return the files that the builder stage uses, the template first."""
    files = (path for path in (docker / FLASH_ATTN).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return (docker / TEMPLATE, *sorted(files))


def files_digest(docker: Path) -> str:
    """Return one sha256 of the builder stage's files, names included."""
    digest = hashlib.sha256()
    for path in build_files(docker):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
