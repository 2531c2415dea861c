"""Whether, after real work on the GPU, every CUDA library in the process is the one that torch pins.

Importing torch maps only some of its libraries: cuDNN's parts, cuSOLVER's and nvJitLink are opened when a kernel first
asks for them. That is when a stray toolkit on the library path gets its chance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from . import distributions
from .framework import Answer, Expect, check, failed, passed
from .gpu_faults import of_the_host

# CUDA's libraries by file name. The driver's own (libcuda, libnvidia-*) come with the host and are not the image's.
CUDA_LIBRARY = re.compile(
    r"lib(cudart|cublas(Lt)?|cudnn\w*|cufftw?|curand|cusolver(Mg)?|cusparse(Lt)?|cupti|nccl"
    r"|nvJitLink|nvrtc|nvrtc-builtins|nvToolsExt|nvshmem\w*|cufile\w*|nvperf\w*)(-[0-9a-f]{8})?\.so(\.[\d.]+)?"
)


def exercise() -> dict[str, Callable[[], Any]]:
    """Return the work that makes torch open its libraries: the library that must be mapped afterwards, and the work."""
    import torch

    def matrix() -> Any:
        return torch.randn(512, 512, device="cuda") @ torch.randn(512, 512, device="cuda")

    def linear() -> Any:
        x = torch.randn(256, 256, device="cuda", dtype=torch.bfloat16)
        return torch.nn.functional.gelu(torch.addmm(x[0], x, x))

    def convolution() -> Any:
        x = torch.randn(2, 8, 64, 64, device="cuda")
        return torch.nn.functional.conv2d(x, torch.randn(8, 8, 3, 3, device="cuda"), padding=1)

    def sparse() -> Any:
        dense = torch.randn(512, 512, device="cuda")
        return (dense * (dense > 1)).to_sparse_csr() @ dense

    return {
        "libcublas": matrix,
        "libcublasLt": linear,
        "libcudnn": convolution,
        "libcusparse": sparse,
        "libcufft": lambda: torch.fft.rfft2(torch.randn(64, 128, 128, device="cuda")),
        "libcusolver": lambda: torch.linalg.svd(torch.randn(128, 96, device="cuda")),
        "libcurand": lambda: torch.randn(1024, device="cuda"),
    }


@check(
    "libraries.exercised",
    "After work on the GPU, does every CUDA library in the process come from the packages that torch pins?",
    needs=("gpu.matches-row",),
    level="gpu",
    timeout=120,
)
def exercised(expect: Expect) -> Answer:
    """Run one piece of work per library, then read which files the process has mapped."""
    import torch

    required = "every CUDA library mapped is a file of torch's own distributions, at the locked version"
    for library, work in exercise().items():
        try:
            work()
            torch.cuda.synchronize()
        except (RuntimeError, OSError) as error:
            if of_the_host(str(error)):
                raise  # says nothing about the image
            return failed(required, f"the work for {library} fails", f"{library}: {error}")
    mapped = sorted(path for path in mapped_files() if CUDA_LIBRARY.fullmatch(Path(path).name))
    owners = distributions.owners(torch_distributions())
    wrong, origin = judge(mapped, owners, expect["torch"]["locked"])
    missing = [name for name in exercise() if not any(Path(path).name.startswith(f"{name}.so") for path in mapped)]
    if missing:
        wrong.append(f"exercised, but not mapped: {', '.join(missing)}; is it linked statically?")
    data = {"origin": origin}
    if wrong:
        return failed(required, wrong[0], "\n".join(wrong), **data)
    packages = sorted({package for package, _ in origin.values()})
    return passed(required, f"{len(mapped)} libraries from {len(packages)} packages: {', '.join(packages)}", **data)


def judge(
    mapped: Iterable[str], owners: dict[str, tuple[str, str]], locked: dict[str, str]
) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Return what is wrong with the mapped files, and each file's package and version.

    owners: real path to (package, version), for every file of torch and of what it requires.
    locked: package to version.
    """
    wrong, origin = [], {}
    for path in mapped:
        owner = owners.get(os.path.realpath(path))
        if owner is None:
            wrong.append(f"{Path(path).name} comes from {path}, which belongs to no package that torch requires")
            continue
        origin[path] = owner
        package, version = owner
        if locked.get(package, version) != version:
            wrong.append(f"{Path(path).name} is {package} {version}; {locked[package]} is locked")
    return wrong, origin


def mapped_files(maps: str = "/proc/self/maps") -> set[str]:
    """Return the files that this process has mapped."""
    with Path(maps).open(encoding="utf-8", errors="surrogateescape") as file:
        fields = (line.rstrip("\n").split(maxsplit=5) for line in file)
        return {parts[5] for parts in fields if len(parts) == 6 and parts[5].startswith("/")}


def torch_distributions() -> list[metadata.Distribution]:
    """Return torch's installed distribution and, transitively, every installed one that it requires.

    Requirements behind extras count: torch 2.11 reaches NVIDIA's packages through extras of `cuda-toolkit`.
    """
    installed, _ = distributions.installed()
    found: dict[str, metadata.Distribution] = {}
    waiting = ["torch"]
    while waiting:
        name = waiting.pop()
        if name in found or name not in installed:
            continue
        found[name] = installed[name]
        for requirement in installed[name].requires or ():
            waiting.append(distributions.normalised(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]))
    return list(found.values())
