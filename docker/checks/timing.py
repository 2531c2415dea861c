"""Time work on the GPU with the GPU's own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable


def device_times(work: Callable[[], object], *, repeats: int, warmup: int = 5) -> list[float]:
    """Return how long each of `repeats` calls of `work` took on the device, in ms.

    Events are recorded on the stream around each call and read after one synchronisation at the end: a wall clock
    without synchronising would time the launches, and one synchronisation per call would time the gaps between them.
    The warm-up calls choose algorithms, load kernels and raise the clocks; they are not counted.
    """
    import torch

    for _ in range(warmup):
        work()
    pairs = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairs]


def median_ms(work: Callable[[], object], *, repeats: int, warmup: int = 5) -> float:
    """Return the median device time of `work` in ms.

    One slow call among many (another tenant, a clock step) does not move it.
    """
    return statistics.median(device_times(work, repeats=repeats, warmup=warmup))
