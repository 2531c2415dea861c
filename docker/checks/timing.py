"""Time work on the GPU with the GPU's own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any


def times_in_turn(works: Sequence[Callable[[], object]], *, repeats: int, warmup: int = 5) -> list[list[float]]:
    """Return how long each of `repeats` calls of each work took on the device, in ms, the works taking turns.

    What slows the GPU for a while, such as work of others, then meets all of them, not the one whose turn was last.
    Events are recorded on the stream around each call and read after one synchronisation at the end: a wall clock
    without synchronising would time the launches, and one synchronisation per call would time the gaps between them.
    The warm-up calls choose algorithms, load kernels and raise the clocks; they are not counted.
    """
    import torch

    for _ in range(warmup):
        for work in works:
            work()
    pairs: list[list[Any]] = [[] for _ in works]
    for _ in range(repeats):
        for work, timed in zip(works, pairs):  # noqa: B905  (strict= needs Python 3.10)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            timed.append((start, end))
    torch.cuda.synchronize()
    return [[start.elapsed_time(end) for start, end in timed] for timed in pairs]


def device_times(work: Callable[[], object], *, repeats: int, warmup: int = 5) -> list[float]:
    """Return how long each of `repeats` calls of one work took on the device, in ms: `times_in_turn` of it alone."""
    return times_in_turn([work], repeats=repeats, warmup=warmup)[0]


def median_ms(work: Callable[[], object], *, repeats: int, warmup: int = 5) -> float:
    """Return the median device time of `work` in ms.

    One slow call among many (another tenant, a clock step) does not move it.
    """
    return statistics.median(device_times(work, repeats=repeats, warmup=warmup))
