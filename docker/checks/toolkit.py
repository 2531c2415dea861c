"""The CUDA toolkit in `/usr/local/cuda-X.Y`: are its files the release's, and is it torch's CUDA release.

Every component is read from the files themselves, from as many of them as tell: a release's `version.json` alone
would only repeat what somebody wrote into it. What a file tells may be shorter than the component's version
(`CUDART_VERSION 12010` is 12.1): it must be its beginning.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import re
import subprocess  # ptxas and nvcc, as argument lists
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .framework import Answer, Expect, check, failed, passed

LOCAL = Path("/usr/local")
FOLDERS = ("bin", "include", "lib64", "nvvm")
# How NVIDIA's own version.json names the components of the releases table.
NAMES_IN_VERSION_JSON = {
    "cudart": "cuda_cudart",
    "nvcc": "cuda_nvcc",
    "nvjitlink": "libnvjitlink",
    "nvrtc": "cuda_nvrtc",
    "cublas": "libcublas",
    "cccl": "cuda_cccl",
}
COMPILER_STAMP = re.compile(rb"Cuda compilation tools, release [\d.]+, V([\d.]+)")

Read = Callable[[Path], str]  # the version, or nothing where the file does not tell it


@dataclass(frozen=True)
class Source:
    """One file that tells a component's version, relative to the toolkit, and how it is read.

    optional: only some layouts have the file (NVIDIA's wheels hold no `nvcc`).
    """

    component: str
    path: str
    read: Read
    optional: bool = False


def from_macro(name: str) -> Read:
    """Read `#define NAME 12010` as `12.1`."""

    def read(path: Path) -> str:
        value = _define(path, name)
        return "" if value is None else f"{value // 1000}.{value % 1000 // 10}"

    return read


def from_parts(*names: str) -> Read:
    """Read one `#define` per part of the version."""

    def read(path: Path) -> str:
        parts = [_define(path, name) for name in names]
        return "" if None in parts else ".".join(str(part) for part in parts)

    return read


def from_stamp(path: Path) -> str:
    """Read the line that NVIDIA's compiler tools carry inside: `Cuda compilation tools, release 12.1, V12.1.105`."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        match = COMPILER_STAMP.search(content)
        return match[1].decode("ascii") if match else ""


def from_printed_version(path: Path) -> str:
    """Run the tool with `--version` and read the same line."""
    done = subprocess.run([str(path), "--version"], capture_output=True, timeout=20, check=False)
    match = COMPILER_STAMP.search(done.stdout)
    return match[1].decode("ascii") if match else ""


def from_file_name(path: Path) -> str:
    """Read the version that NVIDIA's installers put into the real file's name: `libcudart.so.12.1.105`."""
    match = re.search(r"\.so\.(\d+(?:\.\d+)+)$", path.resolve().name)
    return match[1] if match else ""


def from_cudart_call(path: Path) -> str:
    """Load the library and ask it: `cudaRuntimeGetVersion`, which needs no GPU."""
    value = ctypes.c_int()
    if ctypes.CDLL(str(path)).cudaRuntimeGetVersion(ctypes.byref(value)) != 0:
        return ""
    return f"{value.value // 1000}.{value.value % 1000 // 10}"


def from_cublaslt_call(path: Path) -> str:
    """Load the library and ask it: `cublasLtGetVersion` gives 120103 for 12.1.3."""
    function = ctypes.CDLL(str(path)).cublasLtGetVersion
    function.restype = ctypes.c_size_t
    value = function()
    return f"{value // 10000}.{value // 100 % 100}.{value % 100}"


SOURCES = (
    Source("cudart", "include/cuda_runtime_api.h", from_macro("CUDART_VERSION")),
    Source("cudart", "include/cuda.h", from_macro("CUDA_VERSION")),
    Source("cudart", "lib64/libcudart.so.{major}", from_file_name, optional=True),
    Source("cudart", "lib64/libcudart.so.{major}", from_cudart_call),
    Source("nvcc", "bin/ptxas", from_printed_version),
    Source("nvcc", "bin/nvcc", from_printed_version, optional=True),
    Source("nvcc", "nvvm/lib64/libnvvm.so", from_stamp),
    Source("nvjitlink", "lib64/libnvJitLink.so.{major}", from_stamp),
    Source("nvrtc", "lib64/libnvrtc.so.{nvrtc}", from_stamp),
    Source(
        "cublas",
        "include/cublas_api.h",
        from_parts(*(f"CUBLAS_VER_{part}" for part in ("MAJOR", "MINOR", "PATCH", "BUILD"))),
    ),
    Source("cublas", "lib64/libcublas.so.{major}", from_file_name, optional=True),
    Source("cublas", "lib64/libcublasLt.so.{major}", from_cublaslt_call),
)


def has_toolkit(expect: Expect) -> bool:
    """Say whether the row asks for a toolkit at all."""
    return bool(expect["toolkit"] != "none")


def folder_of(release: str) -> Path:
    """Return where the toolkit of a release belongs: `/usr/local/cuda-12.1` for 12.1.1."""
    return LOCAL / f"cuda-{short(release)}"


def short(version: str) -> str:
    """Return major and minor of a version."""
    return ".".join(version.split(".")[:2])


@check(
    "toolkit.version",
    "Is every component in /usr/local/cuda-X.Y the one of the release that the row names?",
    timeout=90.0,
    applies=has_toolkit,
)
def version(expect: Expect) -> Answer:
    """Read every component's version from the toolkit's own files and compare it with the release's."""
    release, components = expect["cuda"]["release"], expect["cuda"]["components"]
    folder = folder_of(release)
    required = f"CUDA {release} in {folder}: " + ", ".join(f"{key} {value}" for key, value in components.items())
    if not folder.is_dir():
        there = ", ".join(sorted(str(path) for path in LOCAL.glob("cuda*"))) or "no CUDA folder"
        return failed(required, f"{folder} does not exist; {LOCAL} holds: {there}")
    readings, problems = read_sources(folder, components)
    problems += layout_problems(folder)
    stated, stated_problems = read_version_json(folder, release, components, optional=expect["toolkit"] == "debian")
    told = sorted({reading["component"] for reading in readings} | set(stated))
    problems += stated_problems
    problems += [f"no file of {folder} tells the version of {name}" for name in components if name not in told]
    facts = {"folder": str(folder), "readings": readings, "version.json": stated}
    if problems:
        return failed(required, f"differences: {len(problems)}, such as {problems[0]}", "\n".join(problems), **facts)
    return passed(
        required, f"CUDA {release} in {folder}, told by {len(readings)} files and {len(stated)} entries", **facts
    )


def read_sources(folder: Path, components: dict[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read every source; return the readings, and a line per file that is missing, silent, or another version."""
    major = components["cudart"].split(".")[0]
    # NVIDIA named this one libnvrtc.so.11.2 through CUDA 11 and by the major version since 12.
    names = {"major": major, "nvrtc": "11.2" if major == "11" else major}
    readings, problems = [], []
    for source in SOURCES:
        if source.component not in components:
            continue
        path, wanted = folder / source.path.format(**names), components[source.component]
        if not path.exists():
            if not source.optional:
                problems.append(f"{path} is missing (required: {source.component} {wanted})")
            continue
        try:
            told = source.read(path)
        except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
            problems.append(f"{path} cannot be used: {error}")
            continue
        if not told:
            if not source.optional:
                problems.append(f"{path} does not tell its version (required: {source.component} {wanted})")
            continue
        readings.append({"component": source.component, "file": str(path), "version": told})
        if not begins(wanted, told):
            problems.append(f"{path} is {source.component} {told}, not {wanted}")
    return readings, problems


def read_version_json(
    folder: Path, release: str, components: dict[str, str], *, optional: bool
) -> tuple[dict[str, str], list[str]]:
    """Compare what `version.json` states with the release; return the statements and what is wrong with them."""
    path = folder / "version.json"
    if optional and not path.exists():
        return {}, []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stated = {
            ours: str(content[theirs]["version"]) for ours, theirs in NAMES_IN_VERSION_JSON.items() if theirs in content
        }
        stated_release = str(content["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, [f"{path} cannot be read as NVIDIA's version.json: {error!r}"]
    problems = [
        f"{path} states {name} {stated[name]}, not {wanted}"
        for name, wanted in components.items()
        if name in stated and stated[name] != wanted
    ]
    if not begins(release, short(stated_release)):
        problems.append(f"{path} states CUDA {stated_release}, not {release}")
    return stated, problems


def layout_problems(folder: Path) -> list[str]:
    """Return what a normal `/usr/local/cuda-X.Y` has and this one lacks."""
    problems = [f"{folder / name} is missing" for name in FOLDERS if not (folder / name).is_dir()]
    link = LOCAL / "cuda"
    if link.resolve() != folder.resolve():
        points = link.readlink() if link.is_symlink() else "no symbolic link"
        problems.append(f"{link} must lead to {folder}; it is {points}")
    return problems


@check(
    "toolkit.matches-torch",
    "Is the toolkit the CUDA release that torch is built for?",
    needs=("toolkit.version", "torch.import"),
    applies=has_toolkit,
)
def matches_torch(expect: Expect) -> Answer:
    """Hold the toolkit on disk against `torch.version.cuda` and the CUDA runtime that torch's own metadata pins."""
    import torch

    folder = folder_of(expect["cuda"]["release"])
    toolkit = from_macro("CUDA_VERSION")(folder / "include/cuda.h")
    cudart = expect["cuda"]["components"]["cudart"]  # toolkit.version has just shown that it is true
    pinned = _cudart_that_torch_pins()
    built_for = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}" + (
        f" (cudart {pinned})" if pinned else ""
    )
    is_there = f"the toolkit in {folder} is CUDA {toolkit} (cudart {cudart})"
    required = f"the toolkit is the CUDA release that torch is built for: {torch.version.cuda}"
    facts = {"toolkit": toolkit, "toolkit_cudart": cudart, "torch_cuda": torch.version.cuda, "torch_cudart": pinned}
    if toolkit != torch.version.cuda or (pinned and pinned != cudart):
        return failed(required, f"{is_there}; {built_for}", **facts)
    return passed(required, f"{is_there}; {built_for}", **facts)


def begins(version: str, told: str) -> bool:
    """Say whether `told` is the beginning of `version`, part by part: 12.1 begins 12.1.105, 12.10 does not."""
    parts = told.split(".")
    return version.split(".")[: len(parts)] == parts


def _define(path: Path, name: str) -> int | None:
    text = path.read_text(encoding="utf-8", errors="replace")
    match = re.search(rf"^\s*#\s*define\s+{name}\s+(\d+)\s*$", text, re.MULTILINE)
    return int(match[1]) if match else None


def _cudart_that_torch_pins() -> str | None:
    from importlib import metadata

    for requirement in metadata.requires("torch") or []:
        match = re.match(r"nvidia-cuda-runtime(?:-cu\d+)?\s*\(?==\s*([\d.]+)", requirement)
        if match:
            return match[1]
    return None
