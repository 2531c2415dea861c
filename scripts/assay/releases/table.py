"""Read the TOML tables, look entries up by name or alias, and hash what they say."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import tomli
from pydantic import BaseModel, ValidationError

from assay.errors import MatrixError
from assay.releases.types import Compiler, CudaRelease, Gpu, TorchBuild
from assay.suggest import perhaps

DATA = Path(__file__).resolve().parent

_Entry = TypeVar("_Entry", bound=BaseModel)


@dataclass(frozen=True)
class Releases:
    """The tables. Every look-up raises MatrixError, with the nearest name, for a name that is not there.

    `cudas`, `compilers`, `torches` and `gpus` hold the entries by name, in the order of the files.
    """

    cudas: Mapping[str, CudaRelease]
    compilers: Mapping[str, Compiler]
    torches: Mapping[str, TorchBuild]
    gpus: Mapping[str, Gpu]

    def cuda(self, name: str) -> CudaRelease:
        """Return a release by its name (`12.1.1`) or an alias (`12.1.105`)."""
        return _find("CUDA release", name, self.cudas, "releases/cuda.toml")

    def compiler(self, name: str) -> Compiler:
        """Return an nvcc by its name (`12.4`) or an alias (`12.4.131`)."""
        return _find("nvcc", name, self.compilers, "releases/cuda.toml")

    def torch(self, version: str) -> TorchBuild:
        """Return a torch build by its full local version (`2.4.0+cu121`)."""
        return _find("torch build", version, self.torches, "releases/torch.toml")

    def gpu(self, name: str) -> Gpu:
        """Return a GPU model by its name (`A10`)."""
        return _find("GPU", name, self.gpus, "releases/gpus.toml")

    def gpu_of_device(self, device: str) -> Gpu | None:
        """Return the GPU model that a driver's device name (`NVIDIA H100 80GB HBM3`) means, if the table has it."""
        return next((gpu for gpu in self.gpus.values() if re.search(gpu.device, device)), None)

    @cached_property
    def digest(self) -> str:
        """sha256 of what the tables say (comments and layout do not count), for cache keys."""
        said = {
            table: [entry.model_dump(mode="json") for entry in entries.values()]
            for table, entries in (
                ("cuda", self.cudas),
                ("compiler", self.compilers),
                ("torch", self.torches),
                ("gpu", self.gpus),
            )
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load(folder: Path | None = None) -> Releases:
    """Read `cuda.toml`, `torch.toml` and `gpus.toml` of a folder, by default the package's own.

    Raises MatrixError with every problem of the three files: bad TOML, unknown or missing keys, a name or alias that is
    taken, a torch build whose CUDA release is not in the table, a device pattern that does not compile.
    """
    folder = folder or DATA
    problems: list[str] = []
    cuda_file, torch_file, gpu_file = (folder / f"{name}.toml" for name in ("cuda", "torch", "gpus"))
    cuda, torch, gpu = (_read(file, problems) for file in (cuda_file, torch_file, gpu_file))
    releases = Releases(
        cudas=_entries(CudaRelease, "release", "name", cuda, cuda_file, problems),
        compilers=_entries(Compiler, "compiler", "name", cuda, cuda_file, problems),
        torches=_entries(TorchBuild, "build", "version", torch, torch_file, problems),
        gpus=_entries(Gpu, "gpu", "name", gpu, gpu_file, problems),
    )
    problems += [
        f"{torch_file}: build {build.version}: its cuda-release {build.cuda_release!r} is not in {cuda_file.name}; "
        f"{perhaps(build.cuda_release, releases.cudas)}"
        for build in releases.torches.values()
        if build.cuda_release not in releases.cudas
    ]
    problems += [
        f"{gpu_file}: gpu {gpu.name}: device {gpu.device!r} is not a regular expression"
        for gpu in releases.gpus.values()
        if not _compiles(gpu.device)
    ]
    if problems:
        raise MatrixError(problems)
    return releases


def _find(kind: str, name: str, table: Mapping[str, _Entry], file: str) -> _Entry:
    """Return the entry of that name or alias."""
    if name in table:
        return table[name]
    for entry in table.values():
        if name in getattr(entry, "aliases", ()):
            return entry
    known = {*table, *(alias for entry in table.values() for alias in getattr(entry, "aliases", ()))}
    raise MatrixError([f"unknown {kind} {name!r}; {perhaps(name, known)} (the table is {file})"])


def _read(file: Path, problems: list[str]) -> dict[str, Any]:
    """Return a parsed TOML file; what is wrong with it goes to `problems`."""
    try:
        return tomli.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{file}: not valid TOML: {error}")
    return {}


def _entries(
    model: type[_Entry], table: str, key: str, raw: Mapping[str, Any], file: Path, problems: list[str]
) -> dict[str, _Entry]:
    """Return the entries of one array of tables by their name; what is wrong with them goes to `problems`."""
    entries: dict[str, _Entry] = {}
    taken: set[str] = set()
    for number, item in enumerate(raw.get(table, []), start=1):
        try:
            entry = model.model_validate(item)
        except ValidationError as error:
            problems += [
                f"{file}: {table} {number}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
                for detail in error.errors()
            ]
            continue
        names = [getattr(entry, key), *getattr(entry, "aliases", ())]
        problems += [f"{file}: {table} {number}: {name!r} is taken" for name in _repeated(names, taken)]
        taken.update(names)
        entries[names[0]] = entry
    return entries


def _repeated(names: Iterable[str], taken: set[str]) -> list[str]:
    """Return the names that are taken already, by another entry or within this one."""
    seen = set(taken)
    repeated = []
    for name in names:
        if name in seen:
            repeated.append(name)
        seen.add(name)
    return repeated


def _compiles(pattern: str) -> bool:
    """Say whether a regular expression compiles."""
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
