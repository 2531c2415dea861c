"""Which kernels a piece of work really launched, as the CUDA profiling interface saw them."""

from __future__ import annotations

import re
from collections.abc import Callable

# flash-attn's forward kernels live in C++ namespace `flash`. torch compiles the same source into its own library as
# `pytorch_flash`, so a plain search for "flash_fwd" would take torch's attention for flash-attn's.
FLASH_ATTN_FORWARD = re.compile(r"(?<!\w)flash::flash_fwd_\w*kernel")


class ProfilerBlindError(RuntimeError):
    """The profiler recorded no kernel at all, although one was surely launched: its silence proves nothing."""


def launched(work: Callable[[], object]) -> list[str]:
    """Return the names of the kernels that `work` launched, in order.

    A matrix product runs first within the same profile as a control.
    Raises ProfilerBlindError when not even that was recorded.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    matrix = torch.ones(256, 256, device="cuda")
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as control:
        matrix @ matrix
        torch.cuda.synchronize()
    if not _kernels(control):
        raise ProfilerBlindError("torch.profiler recorded no kernel of a matrix product on this GPU")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize()
    return _kernels(recorded)


def _kernels(recorded: object) -> list[str]:
    """Return the device-side events of a finished profile, copies and fills left out."""
    from torch.autograd import DeviceType

    return [
        event.name
        for event in recorded.events()  # type: ignore[attr-defined]
        if event.device_type == DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset"))
    ]
