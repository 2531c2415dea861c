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


class Others:
    """Work of others on a GPU, looked for before a check's own and after it.

    It makes what is timed slower, and the long more than the short: what takes longer than the GPU's slice of time is
    interrupted. A ratio of two times may therefore come out better, too: beside three others, an H100's bf16 product
    took its usual time and was 69 times as fast as fp32, not 15 times.
    """

    def __init__(self, uuid: str) -> None:
        """Look now, before the check's own work, at the GPU of a UUID, which this process holds from here on.

        Without persistence mode the driver starts the GPU for its first user and clears its memory, which NVML counts
        as work (nvml.h, nvmlDeviceGetUtilizationRates). That, and what the check before it left, is waited for.
        """
        import torch

        self._uuid = uuid
        torch.empty(1, device="cuda")
        time.sleep(SETTLE_SECONDS)
        self._before = self._look("before the check began")
        self._after: tuple[str, str] | None = None

    def _look(self, when: str) -> tuple[str, str]:
        """Return what others do, and why nobody can tell: one of the two is empty, or both."""
        try:
            share = nvidia.utilization(self._uuid)
        except (OSError, nvidia.DriverError) as error:
            return "", f"nobody can tell whether others used the GPU ({error})"
        return (f"the GPU was {share} % busy with other work {when}" if share > FREE_PERCENT else ""), ""

    def seen(self) -> str:
        """Say what was seen, before or now; empty for nothing, and where nobody can tell, as of a virtual GPU.

        Asked once the check's own work is over: what others began meanwhile shows only now.
        """
        if self._before[0]:
            return self._before[0]
        if self._after is None:
            time.sleep(SETTLE_SECONDS)
            self._after = self._look("once the check's own was over")
        return self._after[0]

    def not_excluded(self) -> str:
        """Say the same, or why nobody can tell; empty where the GPU was free."""
        return self.seen() or self._before[1] or (self._after or ("", ""))[1]


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
