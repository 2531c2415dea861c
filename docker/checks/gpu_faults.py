"""Errors of a GPU: which of them an image can cause, and which only the machine that it is judged on."""

from __future__ import annotations

import re

# The GPU said no, as opposed to the build's own refusal of a head dim that it was made without.
GPU_ERROR = re.compile(r"CUDA error|no kernel image|illegal memory|misaligned|launch failure", re.IGNORECASE)

# Memory that others hold, a GPU that is busy, broken or was taken away: no image mends or causes that. The texts are
# CUDA's own (cudaGetErrorString), cuBLAS's status names and torch's.
HOST_FAULT = re.compile(
    r"out of memory|ALLOC_FAILED|can't allocate memory|busy or unavailable|uncorrectable (ECC|NVLink) error"
    r"|No CUDA GPUs are available|CUDA unknown error|system not yet initialized|GPU has fallen off|hardware stack error"
    r"|device not ready|external device",
    re.IGNORECASE,
)

# What cuInit answers because of something in the image. All other codes are the machine's.
CUDA_ERROR_NO_DEVICE = 100  # the image's doing only where it hides the GPU
OF_THE_IMAGE = {
    34: "the image's libcuda is a stub",  # CUDA_ERROR_STUB_LIBRARY
    803: "the image brings another driver's libcuda",  # CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
    804: "the image's cuda-compat does not suit this GPU",  # CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
}
