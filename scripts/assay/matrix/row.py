"""A row of the matrix: one combination, fully resolved, and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from assay.findings import Level

Expectation = Literal["certify", "reject"]
ToolkitSource = Literal["wheels", "base", "debian", "none"]
LibraryPath = Literal["none", "toolkit"]
FlashAttnSource = Literal["auto", "wheelhouse", "release", "compile", "skip-cuda", "base", "none"]
Dtype = Literal["bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One root failure that a `reject` row must show: the check's id and a regular expression for its evidence."""

    check: str
    matches: str


@dataclass(frozen=True, kw_only=True)
class FlashAttn:
    """Which flash-attn goes into the image, and where it comes from.

    source: `auto` tries the wheelhouse, then the release wheel (where `url` and `sha256` are given), then `compile`;
        `skip-cuda` builds the package without its kernels; `base` means that the base image brings it; `none` leaves
        it out.
    nvcc: the compiler for `compile`, by its name among the compilers of `releases/cuda.toml` (`12.4`, `11.8`).
    head_dims, dtypes, archs: the kernels that `compile` builds, archs as CUDA writes them (`80`, `90`).
    url, sha256: the release wheel, where one is named.
    """

    version: str = "2.8.3"
    source: FlashAttnSource = "auto"
    nvcc: str = "12.4"
    head_dims: tuple[int, ...] = (64, 96, 128)
    dtypes: tuple[Dtype, ...] = ("bf16", "fp16")
    archs: tuple[str, ...] = ("80",)
    url: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """Python packages that a row adds to those of its locks.

    path: of the file, beside the matrix file. sha256: of that file. packages: name and version of each, all pinned by
    hash there.
    """

    path: str
    sha256: str
    packages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One combination of base, CUDA toolkit, torch and flash-attn.

    id: lower-case letters and digits, `.`, `_`, `-` between them; names the row's folder in the output and its image.
    what: one line for people.
    base: `debian:bookworm` (bootstrapped from the Debian index where the engine does not hold it) or any image
        reference.
    cuda: release name in `releases/cuda.toml` (`12.1.1`); the matrix file may use the article's names (`12.1.105`).
    toolkit: where `/usr/local/cuda-X.Y` comes from.
    library_path: `toolkit` puts the toolkit's lib64 first on LD_LIBRARY_PATH, as many Dockerfiles do.
    torch: full local version, `2.4.0+cu121`; `base` when the base image brings it.
    python: `3.11`, the interpreter that gets torch.
    runtime: `newbie` bakes in the drawing pipeline and test.py; `none` leaves them out (no sample checks then).
    gpus: names in the releases table's GPU list that the image is meant for.
    runner: labels of the GitHub Actions runner that certifies the row.
    env: environment variables of the image beyond what the parts set.
    files: files laid over the finished image, as path in the image to path beside the matrix file; for rows that
        must be rejected for what somebody changed.
    requirements: Python packages of the row's own, installed after torch, flash-attn and the runtime.
    dockerfile: file beside the matrix file with instructions of the row's own, the last part of its image.
    context: folder beside the matrix file that these instructions copy from, as `own/`.
    optional_libraries: files of packages that may be unloadable, as nothing that the image is for loads them: paths in
        site-packages, with wildcards (`numba/np/ufunc/tbbpool.*.so`).
    content: sha256 over what `files`, `dockerfile` and `context` name; None where they name nothing.
    tags: moving tags that follow this row when it is published.
    required_level: the level at which publishing asks for the certificate.
    """

    id: str
    expect: Expectation
    because: tuple[Reason, ...] = ()
    what: str = ""
    base: str = "debian:bookworm"
    cuda: str = "12.1.1"
    toolkit: ToolkitSource = "wheels"
    library_path: LibraryPath = "none"
    torch: str = "2.4.0+cu121"
    python: str = "3.11"
    flash_attn: FlashAttn = FlashAttn()
    runtime: Literal["newbie", "none"] = "newbie"
    gpus: tuple[str, ...] = ("A100",)
    runner: tuple[str, ...] = ("ubuntu-latest",)
    env: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    requirements: Requirements | None = None
    dockerfile: str | None = None
    context: str | None = None
    optional_libraries: tuple[str, ...] = ()
    content: str | None = None
    tags: tuple[str, ...] = ()
    required_level: Level = Level.GPU

    @property
    def adds_its_own(self) -> bool:
        """Say whether the image holds more than the parts that every row is made of."""
        return self.requirements is not None or self.dockerfile is not None
