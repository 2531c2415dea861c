"""What an image of a row should hold, as `expect.json` says it: see `Expect` in `docker/checks/framework.py`."""

from __future__ import annotations

from typing import Any

from assay import pinned
from assay.compose.context import python_locks, runtime_files
from assay.engine import GpuAccess
from assay.findings import Level
from assay.matrix.row import Row
from assay.paths import docker_dir
from assay.releases import Releases
from assay.wheels import Wheel

# Sonames of CUDA's libraries and the package that holds each, by CUDA major version. Source: the wheels' own content
# (`unzip -l`) at the versions that torch 2.4.0+cu121 pins.
LIBRARIES = {
    "12": {
        "libcublas.so.12": "nvidia-cublas-cu12",
        "libcublasLt.so.12": "nvidia-cublas-cu12",
        "libcudart.so.12": "nvidia-cuda-runtime-cu12",
        "libcudnn.so.9": "nvidia-cudnn-cu12",
        "libcufft.so.11": "nvidia-cufft-cu12",
        "libcupti.so.12": "nvidia-cuda-cupti-cu12",
        "libcurand.so.10": "nvidia-curand-cu12",
        "libcusolver.so.11": "nvidia-cusolver-cu12",
        "libcusparse.so.12": "nvidia-cusparse-cu12",
        "libnccl.so.2": "nvidia-nccl-cu12",
        "libnvJitLink.so.12": "nvidia-nvjitlink-cu12",
        "libnvToolsExt.so.1": "nvidia-nvtx-cu12",
        "libnvrtc.so.12": "nvidia-cuda-nvrtc-cu12",
    }
}

SAMPLE = {Level.IMAGE: {"prompts": 16, "soak": 8}, Level.GPU: {"prompts": 64, "soak": 200}}
"""Pictures that `sample.generate` draws, and pictures in a row that `sample.soak` draws: more than seven."""


def expectation(
    row: Row,
    *,
    level: Level,
    wheel: Wheel | None,
    releases: Releases,
    gpu: GpuAccess | None,
    seed: int,
) -> dict[str, Any]:
    """Return the content of `expect.json` for one run of a row's checks.

    wheel: the flash-attn wheel that went into the image, None where the base image brought it or there is none.
    gpu: how the container gets its GPU; None at level `image`.
    Raises UsageError or IngredientError when the row names what the releases table or the locks do not hold.
    """
    release, torch = releases.cuda(row.cuda), _torch(row, releases)
    own = dict(row.requirements.packages) if row.requirements else {}
    locked = {} if row.torch == "base" else _locked(row, releases) | own
    return {
        "row": row.id,
        "level": level.value,
        "seed": seed,
        "sample": SAMPLE[level],
        "python": row.python if row.torch != "base" else None,
        "cuda": {
            "release": release.name,
            "components": release.components,
            "driver": {"shipped": release.driver_shipped, "minimum": release.driver_minimum},
        },
        "toolkit": row.toolkit,
        "library_path": row.library_path,
        "torch": {**torch, "locked": dict(sorted(locked.items()))},
        "requirements": own,
        "flash_attn": {
            "version": row.flash_attn.version,
            "source": row.flash_attn.source,
            "wheel": _wheel(wheel),
            "head_dims": list(row.flash_attn.head_dims),
            "dtypes": list(row.flash_attn.dtypes),
        },
        "gpus": [releases.gpu(name).model_dump(mode="json") for name in row.gpus],
        "gpu": _gpu(gpu, releases),
        "runtime": row.runtime,
        "runtime_files": runtime_files(row, docker_dir()),
        "optional_libraries": list(row.optional_libraries),
        "libraries": {
            soname: package
            for soname, package in LIBRARIES.get(torch["cuda"].split(".")[0], {}).items()
            if package in locked
        },
    }


def _torch(row: Row, releases: Releases) -> dict[str, Any]:
    if row.torch == "base":
        # The base image's own build: all that the row says of it is the CUDA release that it goes with.
        return {"version": None, "cuda": releases.cuda(row.cuda).short, "cxx11_abi": None, "archs": None}
    build = releases.torch(row.torch)
    return {"version": build.version, "cuda": build.cuda, "cxx11_abi": build.cxx11_abi, "archs": list(build.archs)}


def _locked(row: Row, releases: Releases) -> dict[str, str]:
    """Return package -> version of the locks that are installed into the image's Python."""
    held = pinned.locked(python_locks(row, releases).values())
    return {name: locked.pin.version for name, locked in held.items()}


def _wheel(wheel: Wheel | None) -> dict[str, Any] | None:
    if wheel is None:
        return None
    return {"filename": wheel.path.name, "sha256": wheel.sha256, "files": dict(wheel.files)}


def _gpu(access: GpuAccess | None, releases: Releases) -> dict[str, Any] | None:
    if access is None:
        return None
    chosen = access.gpu
    model = releases.gpu_of_device(chosen.name)
    return {
        "index": chosen.index,
        "name": chosen.name,
        "uuid": chosen.uuid,
        "driver": chosen.driver,
        "memory_bytes": chosen.memory_bytes,
        "capability": chosen.capability or None,
        "library_path": access.library_path or None,
        "model": model.model_dump(mode="json") if model else None,
    }
