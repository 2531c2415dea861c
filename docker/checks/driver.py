"""Whether the host's driver suits the CUDA release, by itself or with a newer libcuda that the image brings.

`NVIDIA_REQUIRE_CUDA` is not relied on: CDI and plain device access pass it by.
"""

from __future__ import annotations

import os
import re
from typing import Any

from . import nvidia
from .framework import Answer, Expect, check, failed, passed
from .gpu_faults import OF_THE_IMAGE

LIBRARY_VERSION = re.compile(r"/libcuda\.so\.(\d+(?:\.\d+)+)$")


@check(
    "driver.version",
    "Is the host's driver new enough for the image's CUDA release?",
    level="gpu",
    timeout=120,  # without persistence mode the driver is loaded first
)
def driver_version(expect: Expect) -> Answer:
    """Ask NVML for the driver's version and place it in the release table.

    A driver that is too old by that table passes where a newer libcuda serves the release on it: forward compatibility,
    which the image's package `cuda-compat` brings. Without it the driver fails the row, although it is the host's:
    whether driver, toolkit and torch agree is what a row is about.
    """
    release, driver = expect["cuda"]["release"], expect["cuda"]["driver"]
    try:
        found = nvidia.versions()
    except OSError as error:
        return Answer(
            "error", f"{nvidia.NVML} of the host's driver in the container", "it cannot be loaded", str(error)
        )
    except nvidia.DriverError as error:
        return Answer("error", "NVML answers", "it does not", str(error))
    required = (
        f"driver >= {driver['minimum']}, the minimum for CUDA {release}; {driver['shipped']} shipped with it; "
        "or a newer libcuda in the image that works with the driver"
    )
    support = driver_support(found["driver"], shipped=driver["shipped"], minimum=driver["minimum"])
    serves = f" (CUDA {found['cuda']})" if found["cuda"] else ""
    measured = f"driver {found['driver']}{serves}: {SUPPORT[support]}"
    if support != "too-old":
        return passed(required, measured, support=support, **found)
    met = nvidia.probe_with(nvidia.seeing(os.environ))  # whether the image hides the GPU is for gpu.visible to say
    compatible = forward_compatibility(met, found["driver"], release)
    if compatible == "works":
        measured += f" by itself; served by forward compatibility (cuda-compat: {said_by(met)})"
        return passed(required, measured, support="forward-compatibility", libcuda=met["library"], **found)
    if compatible == "unknown":
        text = f"{measured} by itself, and whether the image's cuda-compat helps cannot be told: {said_by(met)}"
        return Answer("error", required, text, text, {"support": support, **found})
    folder = (expect["gpu"] or {}).get("library_path")
    if folder:
        hidden = nvidia.probe_with(nvidia.seeing(nvidia.environment_without(folder)))
        if forward_compatibility(hidden, found["driver"], release) == "works":
            text = (
                f"{measured} by itself, and the driver's files in {folder} hide the image's cuda-compat "
                f"({said_by(hidden)}): judge it by NVIDIA's runtime or CDI"
            )
            return Answer("error", required, text, text, {"support": support, **found})
    return failed(required, measured, f"{measured}; {said_by(met)}", support=support, **found)


SUPPORT = {
    "shipped-or-newer": "as new as the one that shipped with the release, or newer",
    "minor-version": "older than the one that shipped, supported by minor-version compatibility "
    "(machine code runs; PTX of this release may not)",
    "too-old": "too old for this release",
}


def said_by(met: dict[str, Any]) -> str:
    """Return what `nvidia.probe` met, in words."""
    return f"{met['library'] or nvidia.LIBCUDA}: {met['refused'] or 'serves CUDA ' + met['cuda']}"


def forward_compatibility(met: dict[str, Any], driver: str, release: str) -> str:
    """Say whether the libcuda that was met makes up for a driver that is too old: `works`, `no` or `unknown`.

    met: from `nvidia.probe`. driver: version of the kernel's module. release: CUDA's, `12.1.1`.
    It works where it starts, shows a GPU and serves CUDA of the release's major version, which is what the minimum of
    the release table stands for. A stub refuses to start; the host's own libcuda has the version of its kernel module.
    Where the file lies tells nothing: NVIDIA's runtime mounts the image's cuda-compat beside the driver's libraries
    (libnvidia-container, nvc_mount.c). `unknown` is a newer libcuda that the machine did not let start.
    """
    named = LIBRARY_VERSION.search(met["library"] or "")
    if named and version(named[1]) <= version(driver):
        return "no"
    if met["refused"]:
        return "unknown" if named and met["code"] not in OF_THE_IMAGE else "no"
    return "works" if met["devices"] and version(met["cuda"])[0] >= version(release)[0] else "no"


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
