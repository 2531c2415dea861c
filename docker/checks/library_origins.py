"""Which file each CUDA library in the process really came from, and what version its own code says it is.

`import torch` maps most of them. The others are opened here as torch opens them later: through torch's own
libraries, whose search paths decide, and through cuDNN's version calls, which open cuDNN's parts. None of this
needs a GPU; `libraries_gpu.py` repeats the question after real work on one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from . import distributions, loader
from .framework import Answer, Expect, check, failed, passed
from .libraries_gpu import CUDA_LIBRARY, judge, mapped_files, torch_distributions
from .toolkit import begins
from .toolkit_sources import from_stamp

# Opened by torch when a tensor first needs them; this one needs no driver to be loaded.
OPENED_LATER = ("libtorch_cuda_linalg.so",)
# Needs libcuda.so.1, which the driver brings: without a GPU the loader is asked what it would take for it.
TRACED = ("libcaffe2_nvrtc.so",)
CUDNN_PARTS = ("cudnnGraphVersionCheck", "cudnnOpsVersionCheck", "cudnnCnnVersionCheck", "cudnnAdvVersionCheck")

Ask = Callable[[str], str]


def by_property(function: str) -> Ask:
    """Ask through `xxxGetProperty(which part, int *)`, which CUDA's math libraries share."""

    def ask(path: str) -> str:
        parts = []
        for which in range(3):
            value = ctypes.c_int()
            if getattr(ctypes.CDLL(path), function)(which, ctypes.byref(value)) != 0:
                raise OSError(f"{function} of {path} does not answer")
            parts.append(str(value.value))
        return ".".join(parts)

    return ask


def by_number(function: str, decode: Callable[[int], str]) -> Ask:
    """Ask through a function that writes one number."""

    def ask(path: str) -> str:
        value = ctypes.c_int()
        if getattr(ctypes.CDLL(path), function)(ctypes.byref(value)) != 0:
            raise OSError(f"{function} of {path} does not answer")
        return decode(value.value)

    return ask


def by_stamp(path: str) -> str:
    """Read the compiler tools' stamp in the file."""
    return from_stamp(Path(path))


# Library name up to `.so`, and how it tells its version.
ASKED: dict[str, Ask] = {
    "libcudart": by_number("cudaRuntimeGetVersion", lambda value: f"{value // 1000}.{value % 1000 // 10}"),
    "libcublas": by_property("cublasGetProperty"),
    "libcublasLt": by_property("cublasLtGetProperty"),
    "libcudnn": by_property("cudnnGetProperty"),
    "libcufft": by_property("cufftGetProperty"),
    "libcurand": by_property("curandGetProperty"),
    "libcusolver": by_property("cusolverGetProperty"),
    "libcusparse": by_property("cusparseGetProperty"),
    "libnccl": by_number("ncclGetVersion", lambda value: f"{value // 10000}.{value // 100 % 100}.{value % 100}"),
    "libnvJitLink": by_stamp,
    "libnvrtc": by_stamp,
}


@check(
    "libraries.origin",
    "Is every CUDA library in the process the file of the package that torch pins, at that version?",
    needs=("torch.import",),
    timeout=120.0,
)
def origin(expect: Expect) -> Answer:
    """Open what torch opens, read which files the process has mapped, and ask each library for its version."""
    required = (
        "every CUDA library mapped is a file of the packages that torch requires, and says that it is that version"
    )
    wrong = open_everything()
    files = {path for path in mapped_files() if CUDA_LIBRARY.fullmatch(Path(path).name)} | traced()
    owners = distributions.owners(torch_distributions())
    more, origins = judge(sorted(files), owners, expect["torch"]["locked"])
    wrong += more
    said: dict[str, str] = {}
    for path, (package, version) in origins.items():
        ask = ASKED.get(Path(path).name.split(".so")[0])
        if ask is None:
            continue
        try:
            said[path] = ask(path)
        except (OSError, AttributeError) as error:
            wrong.append(f"{path} does not say its version: {error}")
            continue
        if not begins(version, said[path]):
            wrong.append(f"{path} belongs to {package} {version}, but its code says {said[path] or 'nothing'}")
    present = {Path(path).name for path in files}
    wrong += [
        f"{name} was not opened; {package} is pinned for it"
        for name, package in expect["libraries"].items()
        if name not in present and package in expect["torch"]["locked"]
    ]
    data = {
        path: {"package": package, "version": version, "says": said.get(path)}
        for path, (package, version) in origins.items()
    }
    if wrong:
        return failed(required, wrong[0], "\n".join(wrong), origin=data)
    packages = sorted({package for package, _ in origins.values()})
    return passed(
        required,
        f"{len(files)} libraries from {len(packages)} packages, {len(said)} of them asked for their version",
        "\n".join(f"{path}: {package} {version}" for path, (package, version) in origins.items()),
        origin=data,
    )


def open_everything() -> list[str]:
    """Import torch and open what it opens later; return a line for each that cannot be opened."""
    import torch

    problems = []
    folder = Path(torch.__file__).parent / "lib"
    for name in OPENED_LATER:
        if (folder / name).exists():
            try:
                ctypes.CDLL(str(folder / name))
            except OSError as error:
                problems.append(f"{name} cannot be opened: {error}")
    torch.backends.cudnn.version()
    cudnn = next((path for path in mapped_files() if Path(path).name.startswith("libcudnn.so")), None)
    for function in CUDNN_PARTS if cudnn else ():
        call = getattr(ctypes.CDLL(cudnn), function, None)  # cuDNN 8 has no such parts
        if call is not None and call() != 0:
            problems.append(f"{function} says that cuDNN's parts do not belong together, or are not there")
    return problems


def traced() -> set[str]:
    """Return the CUDA libraries that the loader would take for those of torch's libraries that need a driver."""
    import torch

    folder = Path(torch.__file__).parent / "lib"
    found: set[str] = set()
    for name in TRACED:
        if (folder / name).exists():
            taken = loader.trace([str(folder / name)]).found.values()
            found.update(os.path.realpath(path) for path in taken if CUDA_LIBRARY.fullmatch(Path(path).name))
    return found
