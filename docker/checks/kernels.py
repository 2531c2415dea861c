"""Which kernels a piece of work really launched, as the CUDA profiling interface saw them."""

from __future__ import annotations

import re
from collections.abc import Callable

# flash-attn's forward kernels live in C++ namespace `flash`. torch compiles the same source into its own library as
# `pytorch_flash`, so a plain search for "flash_fwd" would take torch's attention for flash-attn's.
FLASH_ATTN_FORWARD = re.compile(r"(?<!\w)flash::flash_fwd_\w*kernel")
CONTROL = "triu_tril"  # part of the kernel's name of `torch.tril`


class ProfilerBlindError(RuntimeError):
    """The profiler recorded no kernel at all, although one was surely launched: its silence proves nothing."""


def launched(work: Callable[[], object]) -> list[str]:
    """Return the names of the kernels that `work` launched, in order.

    Another kernel runs first within the same profile as a control, and is left out.
    Raises ProfilerBlindError when not even that was recorded.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    matrix = torch.ones(256, 256, device="cuda")
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        torch.tril(matrix)  # a kernel that no attention launches
        torch.cuda.synchronize()
        work()
        torch.cuda.synchronize()
    names = _kernels(recorded)
    if not any(CONTROL in name for name in names):
        raise ProfilerBlindError("torch.profiler did not record a kernel that was surely launched on this GPU")
    return [name for name in names if CONTROL not in name]


def _kernels(recorded: object) -> list[str]:
    """Return the device-side events of a finished profile, copies and fills left out."""
    from torch.autograd import DeviceType

    return [
        event.name
        for event in recorded.events()  # type: ignore[attr-defined]
        if event.device_type == DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset"))
    ]
