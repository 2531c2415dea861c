"""Errors of a GPU: which of them an image can cause, and which only the machine that it is judged on."""

from __future__ import annotations

import re

# The GPU said no, as opposed to the build's own refusal of a head dim that it was made without.
GPU_ERROR = re.compile(r"CUDA error|no kernel image|illegal memory|misaligned|launch failure", re.IGNORECASE)

# Memory that others hold, a GPU that is busy, broken or was taken away: no image mends or causes that. The texts are
# CUDA's own (cudaGetErrorString), cuBLAS's status names and torch's.
HOST_FAULT = re.compile(
    r"out of memory|ALLOC_FAILED|can't allocate memory|busy or unavailable|uncorrectable (ECC|NVLink) error"
    r"|No CUDA GPUs are available|CUDA unknown error|CUDA error: unknown error|launch timed out"
    r"|system not yet initialized|GPU has fallen off|hardware stack error|device not ready|external device",
    re.IGNORECASE,
)

# What CUDA's libraries answer where they cannot get memory for themselves, and where they do not fit each other: which
# of the two it was, the free memory tells.
LIBRARY_FAULT = re.compile(
    r"CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR)|CUFFT_INTERNAL_ERROR"
    r"|unable to find an engine to execute this computation"
)
ROOM_BYTES = 2 << 30  # what the checks' work takes at most, with the workspaces of cuBLAS and cuDNN

# What cuInit answers because of something in the image. All other codes are the machine's.
CUDA_ERROR_NO_DEVICE = 100  # the image's doing only where it hides the GPU
OF_THE_IMAGE = {
    34: "the image's libcuda is a stub",  # CUDA_ERROR_STUB_LIBRARY
    803: "the image brings another driver's libcuda",  # CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
    804: "the image's cuda-compat does not suit this GPU",  # CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
}


def of_the_host(text: str, free_bytes: int | None = None) -> bool:
    """Say whether an error's text speaks of the machine, not of the image.

    free_bytes: free memory of the GPU after the error; asked of torch when None and the text alone does not tell.
    """
    if HOST_FAULT.search(text):
        return True
    if not LIBRARY_FAULT.search(text):
        return False
    return (free_memory() if free_bytes is None else free_bytes) < ROOM_BYTES


def free_memory() -> int:
    """Return the GPU's free bytes; enough where it does not tell: lack of memory does not end a context."""
    import torch

    try:
        return int(torch.cuda.mem_get_info()[0])
    except RuntimeError:
        return ROOM_BYTES
