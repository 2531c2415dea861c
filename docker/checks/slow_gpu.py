"""Why a GPU may be slow although the image is sound: others use it, or its clocks are held down."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import nvidia

# A GPU that nobody uses is 0 % busy; a display or a monitor's own queries make it a few.
FREE_PERCENT = 10
# Below this share of its highest clock a GPU cannot be held to its limit, which leaves it half its usual speed. An H100
# at this work ran at 1905 to 1935 of 1980 MHz.
FULL_CLOCK = 0.6
# NVML tells the share of busy time over the last sixth of a second to a second, by GPU (nvml.h, nvmlUtilization_t):
# after twice the longest of them nothing of the check's own work is left in it.
SETTLE_SECONDS = 2.0


def others_work(uuid: str, when: str = "before the check began") -> str:
    """Say that somebody else uses the GPU, or that nobody can tell; empty when it is free.

    Asked before a check's own work, some seconds after the check before it. when: ends the sentence.
    """
    try:
        share = nvidia.utilization(uuid)
    except (OSError, nvidia.DriverError) as error:
        return f"nobody can tell whether others used the GPU ({error})"
    return f"the GPU was {share} % busy with other work {when}" if share > FREE_PERCENT else ""


def others_work_afterwards(uuid: str) -> str:
    """Say the same after a check's own work, which is over: work of others that began meanwhile shows only then."""
    time.sleep(SETTLE_SECONDS)
    return others_work(uuid, "once the check's own was over")


def clocks_during(uuid: str, work: Callable[[], object]) -> tuple[dict[str, Any], str]:
    """Return the GPU's clocks while it works, in MHz, and what keeps it slower than it is made for.

    The second is empty for nothing, and says so where nobody can tell.
    """
    import torch

    for _ in range(200):
        work()
    try:
        clocks = nvidia.clocks(uuid)  # while the work just queued is under way
    except (OSError, nvidia.DriverError) as error:
        return {}, f"nobody can tell what the GPU's clocks were ({error})"
    finally:
        torch.cuda.synchronize()
    why = ", ".join(clocks.held_down)
    if not why and clocks.sm_mhz < FULL_CLOCK * clocks.max_sm_mhz:
        why = "its clock is low"
    slow = f"the GPU is held back: {why} ({clocks.sm_mhz} of {clocks.max_sm_mhz} MHz)" if why else ""
    return {"sm_mhz": clocks.sm_mhz, "max_sm_mhz": clocks.max_sm_mhz, "held_down": list(clocks.held_down)}, slow
