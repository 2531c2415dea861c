"""Whether the host's driver suits the CUDA release.

`NVIDIA_REQUIRE_CUDA` is not relied on: CDI and plain device access pass it by.
"""

from __future__ import annotations

import re

from . import nvidia
from .framework import Answer, Expect, check, failed, passed


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
        found = nvidia.versions()
    except OSError as error:
        return Answer(
            "error", f"{nvidia.NVML} of the host's driver in the container", "it cannot be loaded", str(error)
        )
    except nvidia.DriverError as error:
        return Answer("error", "NVML answers", "it does not", str(error))
    required = f"driver >= {driver['minimum']}, the minimum for CUDA {release}; {driver['shipped']} shipped with it"
    support = driver_support(found["driver"], shipped=driver["shipped"], minimum=driver["minimum"])
    serves = f" (CUDA {found['cuda']})" if found["cuda"] else ""
    measured = f"driver {found['driver']}{serves}: {SUPPORT[support]}"
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
