"""The lean compile: which kernels, with which compiler, under which name. Pure, but for reading its own data files.

`docker/flash-attn.build.dockerfile.j2` does the work in a builder stage; here is what it is told, and the key under
which its result is kept.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay import paths
from assay.errors import IngredientError
from assay.matrix.row import Row
from assay.suggest import perhaps

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = Path(__file__).with_name("compilers.toml")

TEMPLATE = "flash-attn.build.dockerfile.j2"
FOLDER = "flash-attn"

# What flash-attn leaves out when these are defined; each must be defined for nvcc and for the host compiler alike.
LEFT_OUT = ("BACKWARD", "DROPOUT", "ALIBI", "SOFTCAP", "LOCAL")
MACROS = tuple(f"FLASHATTENTION_DISABLE_{feature}" for feature in LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """An nvcc from Debian's archive; see `compilers.toml` for the fields."""

    name: str
    version: str
    suite: str
    component: str
    package: str
    package_version: str
    sha256: str
    size: int
    archs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides what a compiled wheel is: what the template of the builder stage is rendered with.

    skip_cuda: build the package without its kernels. compiler: None then. local_version: what is in, for the version
        of the wheel. macros: features left out. python, torch: what it is compiled for.
    """

    version: str
    python: str
    torch: str
    skip_cuda: bool
    compiler: Compiler | None
    head_dims: tuple[int, ...]
    dtypes: tuple[str, ...]
    archs: tuple[str, ...]
    macros: tuple[str, ...]
    local_version: str

    @property
    def units(self) -> int:
        """Return how many files are compiled: the kernels, the API and the definitions of what was left out."""
        return 0 if self.skip_cuda else len(self.head_dims) * len(self.dtypes) * 4 + 2

    def key(self) -> str:
        """Return the sha256 under which the wheel is kept: of the recipe and of the builder stage's files."""
        made_from = {"recipe": asdict(self), "files": files_digest(paths.docker_dir())}
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def record(self) -> Mapping[str, Any]:
        """Return what the record beside the wheel says of how it was made."""
        return {
            "compiler": f"nvcc {self.compiler.version}" if self.compiler else None,
            "python": self.python,
            "torch": self.torch,
            "head_dims": self.head_dims,
            "dtypes": self.dtypes,
            "archs": self.archs,
            "left_out": [feature.lower() for feature in LEFT_OUT] if not self.skip_cuda else ["kernels"],
            "sdist_sha256": sdist_sha256(paths.docker_dir(), self.version),
        }


def compilers() -> tuple[Compiler, ...]:
    """Return the compilers of `compilers.toml`."""
    with TABLE.open("rb") as file:
        entries = tomllib.load(file)["compiler"]
    return tuple(
        Compiler(
            **{
                key.replace("-", "_"): tuple(value) if isinstance(value, list) else value
                for key, value in entry.items()
            }
        )
        for entry in entries
    )


def compiler(name: str) -> Compiler:
    """Return the compiler that the matrix names: `12.4`, or a release or version of it (`12.4.1`, `12.4.131`).

    Raises IngredientError for one that Debian's archive does not have.
    """
    known = {entry.name: entry for entry in compilers()}
    found = known.get(".".join(name.split(".")[:2]))
    if found is None:
        raise IngredientError(
            f"flash-attn.nvcc {name!r}: no such compiler is known; {perhaps(name, known)}. "
            f"Another one of Debian's archive is a table in {TABLE.name}"
        )
    return found


def recipe(row: Row) -> Recipe:
    """Return what the builder stage of a row makes.

    Raises IngredientError when the compiler is unknown or cannot compile for an arch that the row asks for.
    """
    asked = row.flash_attn
    if asked.source == "skip-cuda":
        return Recipe(
            version=asked.version,
            python=row.python,
            torch=row.torch,
            skip_cuda=True,
            compiler=None,
            head_dims=(),
            dtypes=(),
            archs=(),
            macros=(),
            local_version="assay.nokernels",
        )
    nvcc = compiler(asked.nvcc)
    for arch in asked.archs:
        if arch not in nvcc.archs:
            raise IngredientError(
                f"flash-attn.archs {arch!r}: nvcc {nvcc.name} compiles flash-attn {asked.version} for "
                f"{' and '.join(nvcc.archs)} only; code for 80 also runs on GPUs of 8.6 and 8.9"
            )
    return Recipe(
        version=asked.version,
        python=row.python,
        torch=row.torch,
        skip_cuda=False,
        compiler=nvcc,
        head_dims=tuple(sorted(asked.head_dims)),
        dtypes=tuple(sorted(asked.dtypes)),
        archs=tuple(sorted(asked.archs, key=int)),
        macros=MACROS,
        local_version=local_version(asked.head_dims, asked.dtypes, asked.archs),
    )


def local_version(head_dims: tuple[int, ...], dtypes: tuple[str, ...], archs: tuple[str, ...]) -> str:
    """Return the local part of a lean wheel's version (PEP 440): what is in.

    >>> local_version((128, 64), ("bf16",), ("80", "90"))
    'assay.hd64.128.bf16.sm80.90.fwd'
    """
    dims = ".".join(str(head_dim) for head_dim in sorted(head_dims))
    return f"assay.hd{dims}.{'.'.join(sorted(dtypes))}.sm{'.'.join(sorted(archs, key=int))}.fwd"


def build_files(docker: Path) -> tuple[Path, ...]:
    """Return the files that the builder stage uses, the template first."""
    folder = docker / FOLDER
    return (docker / TEMPLATE, *sorted(path for path in folder.iterdir() if path.is_file()))


def files_digest(docker: Path) -> str:
    """Return one sha256 of the builder stage's files, names included."""
    digest = hashlib.sha256()
    for path in build_files(docker):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def sdist_sha256(docker: Path, version: str) -> str:
    """Return the sha256 that the requirements file of a version pins.

    Raises IngredientError when there is no such file: nobody has pinned that version.
    """
    path = docker / FOLDER / f"sdist-{version}.txt"
    if not path.is_file():
        pinned = sorted(other.stem.removeprefix("sdist-") for other in path.parent.glob("sdist-*.txt"))
        raise IngredientError(
            f"flash-attn.version {version!r} cannot be compiled: {path.name} is missing in {path.parent} "
            f"(there for {', '.join(pinned)}). Add it with the sdist's hash, or use a wheelhouse"
        )
    return path.read_text(encoding="utf-8").rpartition("--hash=sha256:")[2].strip()
