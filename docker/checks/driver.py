"""Whether the GPU is there for this image and one that the row is for, and its driver suits the CUDA release.

The driver's libraries are asked directly through ctypes. `nvidia-ml-py` makes the same calls in the same way, but no
image is certain to hold it, and putting it there for the check's sake would change what is certified.
`NVIDIA_REQUIRE_CUDA` is not relied on: CDI and plain device access pass it by.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from . import flash_attention, machine_code, torch_build
from .framework import Answer, Expect, check, failed, passed
from .gpu_faults import CUDA_ERROR_NO_DEVICE, OF_THE_IMAGE

NVML = "libnvidia-ml.so.1"
LIBCUDA = "libcuda.so.1"


class DriverError(RuntimeError):
    """A call into the driver's libraries did not succeed. `code` is the library's own."""

    def __init__(self, call: str, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"{call}: {text} ({code})")


@check(
    "driver.version",
    "Is the host's driver new enough for the image's CUDA release?",
    level="gpu",
    timeout=120,  # without persistence mode the driver is loaded first
)
def driver_version(expect: Expect) -> Answer:
    """Ask NVML for the driver's version and place it in the release table."""
    release, driver = expect["cuda"]["release"], expect["cuda"]["driver"]
    try:
        found = nvml_versions()
    except OSError as error:
        return Answer("error", f"{NVML} of the host's driver in the container", "it cannot be loaded", str(error))
    except DriverError as error:
        return Answer("error", "NVML answers", "it does not", str(error))
    required = f"driver >= {driver['minimum']}, the minimum for CUDA {release}; {driver['shipped']} shipped with it"
    support = driver_support(found["driver"], shipped=driver["shipped"], minimum=driver["minimum"])
    measured = f"driver {found['driver']} (CUDA {found['cuda']}): {SUPPORT[support]}"
    answer = failed if support == "too-old" else passed
    return answer(required, measured, support=support, **found)


SUPPORT = {
    "shipped-or-newer": "as new as the one that shipped with the release, or newer",
    "minor-version": "older than the one that shipped, supported by minor-version compatibility "
    "(machine code runs; PTX of this release may not)",
    "too-old": "too old for this release",
}


def driver_support(found: str, *, shipped: str, minimum: str) -> str:
    """Say how a driver suits a release: a key of `SUPPORT`. A minimum such as `580` means that branch or newer."""
    if version(found) >= version(shipped):
        return "shipped-or-newer"
    return "minor-version" if version(found) >= version(minimum) else "too-old"


def version(text: str) -> tuple[int, ...]:
    """Return the numbers of a driver version. Raises ValueError where there are none."""
    if not re.fullmatch(r"\d+(\.\d+)*", text):
        raise ValueError(f"not a driver version: {text!r}")
    return tuple(int(part) for part in text.split("."))


def nvml_versions() -> dict[str, str]:
    """Return the versions of the driver and of the newest CUDA that it serves.

    Raises OSError without NVML's library, DriverError when NVML refuses.
    """
    nvml = ctypes.CDLL(NVML)
    nvml.nvmlErrorString.restype = ctypes.c_char_p

    def call(name: str, *arguments: Any) -> None:
        code = getattr(nvml, name)(*arguments)
        if code:
            raise DriverError(name, code, nvml.nvmlErrorString(code).decode())

    call("nvmlInit_v2")
    try:
        text = ctypes.create_string_buffer(96)
        call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(len(text)))
        cuda = ctypes.c_int()
        call("nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(cuda))
    finally:
        nvml.nvmlShutdown()
    return {"driver": text.value.decode(), "cuda": f"{cuda.value // 1000}.{cuda.value % 1000 // 10}"}


@check(
    "gpu.visible",
    "Does torch in this image reach the GPU that the host chose?",
    needs=("torch.import",),
    level="gpu",
    timeout=120,
)
def gpu_visible(expect: Expect) -> Answer:
    """Ask the driver, then torch, for the GPU, and compare it with the one that the host chose.

    An image that hides the GPU (`CUDA_VISIBLE_DEVICES`, a stub or an incompatible libcuda) fails. Everything else is an
    `error`, since it says nothing about the image: no driver, no device, a GPU that is not ready, other GPUs than the
    chosen one, which alone the certificate may name.
    """
    chosen = expect["gpu"]
    required = f"CUDA and torch see {chosen['name']}" if chosen else "CUDA and torch see a GPU"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    nodes = sorted(str(node) for pattern in ("nvidia[0-9]*", "dxg") for node in Path("/dev").glob(pattern))
    facts = (
        f"CUDA_VISIBLE_DEVICES={'(not set)' if hidden is None else repr(hidden)}; devices: {' '.join(nodes) or 'none'}"
    )
    try:
        devices = cuda_devices()
    except OSError as error:
        return Answer("error", required, "the container has no driver library", f"{error}; {facts}")
    except DriverError as error:
        if error.code == CUDA_ERROR_NO_DEVICE and hidden is not None:
            return failed(required, f"no GPU: CUDA_VISIBLE_DEVICES={hidden!r} hides the GPU", f"{error}; {facts}")
        if error.code in OF_THE_IMAGE:
            return failed(required, f"no GPU: {OF_THE_IMAGE[error.code]}", f"{error}; {facts}")
        cause = "the container was given no GPU" if not nodes else f"the GPU cannot be used: {error}"
        return Answer("error", required, cause, f"{error}; {facts}")
    import torch

    if not torch.cuda.is_available():
        return failed(required, "CUDA sees a GPU, torch does not", f"torch.cuda.is_available() is False; {facts}")
    torch.empty(1, device="cuda")  # no kernel: whether torch has code for this GPU is another question
    seen = ", ".join(f"{device['name']} ({device['uuid']})" for device in devices)
    wanted = chosen.get("uuid") if chosen else None
    if wanted and [device["uuid"] for device in devices] != [wanted]:
        return Answer(
            "error", required, f"not the chosen GPU alone: {seen}", f"the host chose {wanted}; {facts}",
            {"devices": devices},
        )  # fmt: skip
    return passed(required, seen, devices=devices)


@check(
    "gpu.matches-row",
    "Can this GPU speak for the row: is it of a kind that the row is for, or does the image hold code for it?",
    needs=("gpu.visible",),
    level="gpu",
    timeout=120,
)
def gpu_matches_row(expect: Expect) -> Answer:
    """Compare the GPU's compute capability with those of the row's GPUs, else with the image's machine code.

    An image for other GPUs, without code for this one, is neither right nor wrong here: `error`, so that nothing that
    needs the GPU is asked and no such row is rejected for the machine that it happened to be judged on.
    """
    import torch

    capability = "{}.{}".format(*torch.cuda.get_device_capability(0))
    here = f"{torch.cuda.get_device_name(0)} ({capability})"
    of_row = {gpu["name"]: gpu["capability"] for gpu in expect["gpus"]}
    if not of_row:
        return passed("any GPU", here, of_row=True)
    names = ", ".join(f"{name} ({value})" for name, value in of_row.items())
    required = f"a GPU like {names}, or one that the image's machine code runs on"
    alike = [name for name, value in of_row.items() if value == capability]
    if alike:
        return passed(required, f"{here} runs the same machine code as {', '.join(alike)}", of_row=True)
    try:
        why = why_not_here(expect, capability)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Answer("error", required, "the machine code cannot be read", str(error))
    if why:
        return Answer(
            "error",
            required,
            f"{here} is none of the row's GPUs, and {' and '.join(why)}: "
            f"judge the row on one of {names}, or give it this GPU (`gpus`) and its code (`archs`)",
        )
    return passed(required, f"{here} is none of the row's GPUs, and the image holds code for it", of_row=False)


def why_not_here(expect: Expect, capability: str) -> list[str]:
    """Return why the image's code cannot run on a GPU of a capability; nothing where it can.

    A flash-attn without an extension is not counted: `flash-attn.import` has the word on that.
    Raises RuntimeError, OSError or SubprocessError where the extension cannot be read.
    """
    machine, portable = torch_build.architectures()
    runs = [machine_code.runs_on(arch, capability) for arch in machine]
    runs += [machine_code.compiles_for(arch, capability) for arch in portable]
    found = [] if any(runs) else ["torch holds no code for it"]
    if int(capability.split(".")[0]) < 8:  # Ampere is the first with them (A100 architecture whitepaper)
        found.append("it has no bf16 tensor cores")
    library = flash_attention.extension() if flash_attention.has_flash_attn(expect) else None
    if library is not None:
        archs = {kernel.arch for kernel in machine_code.kernels(library)}
        if not any(machine_code.runs_on(arch, capability) for arch in archs):
            found.append("flash-attn holds no code for it")
    return found


def cuda_devices() -> list[dict[str, str]]:
    """Return name and UUID of every GPU that CUDA shows to this process.

    Raises OSError without the driver's library, DriverError when it refuses, also with CUDA_ERROR_NO_DEVICE.
    """
    cuda = ctypes.CDLL(LIBCUDA)

    def call(name: str, *arguments: Any) -> None:
        code = getattr(cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            cuda.cuGetErrorString(code, ctypes.byref(text))
            raise DriverError(name, code, (text.value or b"unknown error").decode())

    call("cuInit", 0)
    count = ctypes.c_int()
    call("cuDeviceGetCount", ctypes.byref(count))
    devices = []
    for index in range(count.value):
        name, uuid = ctypes.create_string_buffer(128), (ctypes.c_ubyte * 16)()
        call("cuDeviceGetName", name, len(name), index)
        call("cuDeviceGetUuid", uuid, index)
        devices.append({"name": name.value.decode(), "uuid": format_uuid(bytes(uuid))})
    return devices


def format_uuid(raw: bytes) -> str:
    """Return 16 bytes as NVML and nvidia-smi write them: `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`."""
    text = raw.hex()
    return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
