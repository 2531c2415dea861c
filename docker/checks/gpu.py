"""Whether the GPU is there for this image, and can speak for the row."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from . import flash_attention, machine_code, nvidia, torch_build
from .framework import Answer, Expect, check, failed, passed
from .gpu_faults import CUDA_ERROR_NO_DEVICE, OF_THE_IMAGE
from .nvidia import VISIBLE


@check(
    "gpu.visible",
    "Does torch in this image reach the GPU that the host chose?",
    # A driver that is too old is driver.version's to report: torch then sees no GPU, which is no further failure.
    needs=("torch.import", "driver.version"),
    level="gpu",
    timeout=240,
)
def gpu_visible(expect: Expect) -> Answer:
    """Ask the driver, then torch, for the GPU, and compare it with the one that the host chose.

    An image that hides the GPU (`CUDA_VISIBLE_DEVICES`), or brings a libcuda that does not work (a stub, one that does
    not suit the kernel's module), fails. Everything else is an `error`, since it says nothing about the image: no
    driver, no device, a GPU that is not ready, other GPUs than the chosen one, which alone the certificate may name.
    """
    chosen = expect["gpu"]
    required = f"CUDA and torch see {chosen['name']}" if chosen else "CUDA and torch see a GPU"
    hidden = os.environ.get(VISIBLE)
    nodes = sorted(str(node) for pattern in ("nvidia[0-9]*", "dxg") for node in Path("/dev").glob(pattern))
    facts = f"{VISIBLE}={'(not set)' if hidden is None else repr(hidden)}; devices: {' '.join(nodes) or 'none'}"
    try:
        devices = nvidia.cuda_devices()
    except OSError as error:
        return Answer("error", required, "the container has no driver library", f"{error}; {facts}")
    except nvidia.DriverError as error:
        fault, cause = why_no_gpu(error, hidden, nodes)
        answer = "failed" if fault else "error"
        return Answer(answer, required, cause, f"{cause}: {error}; {facts}")
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
    other = shadowed_driver(chosen.get("library_path")) if chosen else None
    if other:
        return failed(required, f"the image brings a libcuda that does not work: {other}", f"{other}; {facts}")
    return passed(required, seen, devices=devices)


def why_no_gpu(error: nvidia.DriverError, hidden: str | None, nodes: list[str]) -> tuple[bool, str]:
    """Return whether the image is to blame for a GPU that cannot be had, and what is wrong.

    hidden: the image's CUDA_VISIBLE_DEVICES. nodes: GPU device nodes of the container.
    Another process without the variable tells whether it was the variable: `CUDA_VISIBLE_DEVICES=0` is in many an
    image and hides nothing. A libcuda that does not suit may be the host's own, in the middle of an update.
    """
    if error.code == CUDA_ERROR_NO_DEVICE and hidden is not None:
        if nvidia.probe_with(nvidia.seeing(os.environ))["devices"]:
            return True, f"no GPU: {VISIBLE}={hidden!r} hides the GPU"
        return False, f"no GPU, with or without {VISIBLE}={hidden!r}"
    if error.code in OF_THE_IMAGE:
        library = nvidia.loaded_libcuda()
        if library is None or nvidia.is_of_the_image(library):
            return True, f"no GPU: {OF_THE_IMAGE[error.code]}, {library}"
        return False, f"no GPU: the host's own {library} does not suit its kernel module"
    return False, f"the GPU cannot be used: {error}" if nodes else "the container was given no GPU"


def shadowed_driver(folder: str | None) -> str | None:
    """Say what is wrong with a libcuda of the image's own that the driver's folder hides here, None where nothing is.

    folder: where the host put the driver's files, and what it added to LD_LIBRARY_PATH for them; None where it went by
    NVIDIA's runtime or CDI. Users do not have it there: they get the library that ld.so.cache names, such as a stub
    that somebody ran ldconfig over. Forward compatibility (`cuda-compat`) works, and is no fault.
    """
    if not folder:
        return None
    met = nvidia.probe_with(nvidia.environment_without(folder))
    library = met["library"]
    if library is None or library.startswith(f"{folder}/") or not nvidia.is_of_the_image(library):
        return None
    return f"{library}: {met['refused']}" if met["refused"] else None


@check(
    "gpu.matches-row",
    "Can this GPU speak for the row: has it the compute capability of a GPU of the row, or has the image code for it?",
    needs=("gpu.visible",),
    level="gpu",
    timeout=120,
)
def gpu_matches_row(expect: Expect) -> Answer:
    """Compare the GPU's compute capability with those of the row's GPUs, else with the image's machine code.

    An image for other GPUs, without code for this one, is neither right nor wrong here: `error`, so that nothing that
    needs the GPU is asked and no such row is rejected for the machine that it happened to be judged on.

    Models of one compute capability run the same machine code, so one speaks for all of them. Of the row's GPUs that
    have another, nothing is said: `not_judged` names them, for the certificate and for the gate before publishing.
    """
    import torch

    capability = "{}.{}".format(*torch.cuda.get_device_capability(0))
    here = f"{torch.cuda.get_device_name(0)} ({capability})"
    of_row = {gpu["name"]: gpu["capability"] for gpu in expect["gpus"]}
    if not of_row:
        return passed("any GPU", here, capability=capability, not_judged=[])
    names = ", ".join(f"{name} ({value})" for name, value in of_row.items())
    required = f"a GPU of the compute capability of {names}, or one that the image's machine code runs on"
    alike = [name for name, value in of_row.items() if value == capability]
    facts = {
        "capability": capability,
        "not_judged": [f"{name} ({value})" for name, value in of_row.items() if value != capability],
    }
    aside = f"; not judged: {', '.join(facts['not_judged'])}" if facts["not_judged"] else ""
    if alike:
        return passed(required, f"{here} runs the same machine code as {', '.join(alike)}{aside}", **facts)
    try:
        why = why_not_here(expect, capability)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Answer("error", required, "the machine code cannot be read", str(error))
    if why:
        return Answer(
            "error",
            required,
            f"{here} is none of the row's GPUs, and {' and '.join(why)}: "
            f"judge the row on one of {names}, or make a row for this GPU (`gpus`) with its code (`archs`)",
        )
    return passed(required, f"{here} is none of the row's GPUs, and the image holds code for it{aside}", **facts)


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
