"""A flash-attn wheel: where it is, what it is, and what is inside."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assay.errors import IngredientError
from assay.files import file_sha256
from assay.wheels import extension
from assay.wheels.extension import Extension

FILE_NAME = re.compile(
    r"flash_attn-(?P<version>[^-]+)(?:-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
# What zipfile raises for bytes that are no archive, or a damaged one; ValueError is extension.read's, too.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)
EXTENSION_NAME = re.compile(r"flash_attn_2_cuda\.[^/]*so")


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One flash-attn wheel, fully read.

    path: the file. sha256: of the file, lower-case hex. version: as the file name says, with its local part.
    source: how it was had: `wheelhouse`, `release`, `compile` or `skip-cuda`.
    compiler: `nvcc 12.4.131, g++ 12.2.0` where the record beside the wheel says so, None where nobody knows.
    archs: architectures that it holds machine code for (`80`), read from the machine code.
    files: sha256 of every file inside, by its path in the wheel; without `RECORD`, which an installer rewrites.
    python: the file name's Python tags (`cp311`). extension: what its shared object says; None when it holds none.
    record: the JSON record beside the wheel (`<file name>.json`), empty when there is none.
    """

    path: Path
    sha256: str
    source: str
    compiler: str | None
    archs: tuple[str, ...]
    version: str
    files: Mapping[str, str]
    python: tuple[str, ...] = ()
    extension: Extension | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def public_version(self) -> str:
        """Return the version without its local part: `2.8.3` of `2.8.3+assay.hd96.bf16.sm80.fwd`."""
        return self.version.partition("+")[0]

    @property
    def local_version(self) -> str:
        """Return the local part of the version, or an empty string."""
        return self.version.partition("+")[2]


def record_path(wheel: Path) -> Path:
    """Return where the JSON record of a wheel lies: beside it, so that it can be copied along."""
    return wheel.with_name(wheel.name + ".json")


def read(path: Path, *, source: str) -> Wheel:
    """Read a wheel.

    Raises IngredientError when the file is no flash-attn wheel, is damaged, or is not the one of its record.
    """
    path = path.resolve()
    beside = record_path(path)
    state = (_state(path), _state(beside) if beside.exists() else None)
    return replace(_read(path, state), source=source)


def _state(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file does."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=64)
def _read(path: Path, _state: object) -> Wheel:
    """Read a wheel, once per state of it and its record: every row of a matrix looks at the same few wheels."""
    name = FILE_NAME.fullmatch(path.name)
    if name is None:
        raise IngredientError(
            f"{path}: not the name of a flash-attn wheel (flash_attn-VERSION-PYTHON-ABI-PLATFORM.whl)"
        )
    digest = file_sha256(path)
    record = _read_record(path, digest)
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {item: archive.read(item) for item in archive.namelist() if not item.endswith("/")}
        library = next((item for item in contents if EXTENSION_NAME.fullmatch(item)), None)
        inside = extension.read(contents[library]) if library else None
    except _DAMAGED as error:
        raise IngredientError(
            f"{path}: damaged wheel (sha256 {digest}): {error}; delete it and fetch it again"
        ) from error
    return Wheel(
        path=path,
        sha256=digest,
        source="wheelhouse",
        compiler=record.get("compiler"),
        archs=inside.archs if inside else (),
        version=name["version"].replace("_", "."),
        files={
            item: hashlib.sha256(content).hexdigest()
            for item, content in contents.items()
            if not item.endswith(".dist-info/RECORD")
        },
        python=tuple(name["python"].split(".")),
        extension=inside,
        record=record,
    )


def _read_record(path: Path, digest: str) -> dict[str, Any]:
    beside = record_path(path)
    if not beside.exists():
        return {}
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IngredientError(f"{beside}: not JSON ({error}); delete it together with its wheel") from error
    if not isinstance(record, dict) or record.get("sha256") != digest:
        claimed = record.get("sha256") if isinstance(record, dict) else None
        raise IngredientError(
            f"{path}: sha256 is {digest}, but the record beside it is of {claimed}; "
            "delete both files and let them be made again"
        )
    return record
