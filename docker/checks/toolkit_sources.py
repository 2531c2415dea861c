"""Which files of a CUDA toolkit tell a component's version, and how each is read."""

from __future__ import annotations

import ctypes
import mmap
import re
import subprocess  # ptxas and nvcc, as argument lists
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import processes

COMPILER_STAMP = re.compile(rb"Cuda compilation tools, release [\d.]+, V([\d.]+)")

Read = Callable[[Path], str]  # the version, or nothing where the file does not tell it


@dataclass(frozen=True)
class Source:
    """One file that tells a component's version, relative to the toolkit, and how it is read.

    optional: only some layouts have the file (NVIDIA's wheels hold no `nvcc`), or have the version in it.
    core: no toolkit is without the file, however it came here.
    """

    component: str
    path: str
    read: Read
    optional: bool = False
    core: bool = False


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
    """Run the tool with `--version` and read the same line.

    Raises RuntimeError where something outside of the tool killed it: then nothing is known of the tool.
    """
    done = subprocess.run([str(path), "--version"], capture_output=True, timeout=20, check=False)
    if done.returncode < 0 and (name := processes.signal_name(-done.returncode)) in processes.FROM_OUTSIDE:
        raise RuntimeError(f"{path} --version was killed by {name}")
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
    Source("cudart", "include/cuda_runtime_api.h", from_macro("CUDART_VERSION"), core=True),
    Source("cudart", "include/cuda.h", from_macro("CUDA_VERSION"), core=True),
    Source("cudart", "lib64/libcudart.so.{major}", from_file_name, optional=True),
    Source("cudart", "lib64/libcudart.so.{major}", from_cudart_call, core=True),
    Source("nvcc", "bin/ptxas", from_printed_version, core=True),
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


def _define(path: Path, name: str) -> int | None:
    text = path.read_text(encoding="utf-8", errors="replace")
    match = re.search(rf"^\s*#\s*define\s+{name}\s+(\d+)\s*$", text, re.MULTILINE)
    return int(match[1]) if match else None
