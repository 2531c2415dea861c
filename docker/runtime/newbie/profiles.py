"""What to ask of a GPU: picture size, steps, dtypes and memory for the full-size model, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """Settings for one GPU model.

    side: width and height of a picture in pixels. dtypes: those that may be chosen, the first one by default.
    memory_budget: GiB that drawing may take; the rest is the driver's and other processes'.
    """

    side: int
    steps: int
    dtypes: tuple[str, ...]
    memory_budget: float


PROFILES: dict[str, Profile] = {
    # 24 GB cards keep 2 GiB free. fp32 would not fit: 14 GiB of weights for the transformer alone.
    "A10": Profile(1024, 30, ("bf16",), 22.0),
    "RTX4090": Profile(1280, 35, ("bf16",), 22.0),
    # The smaller of the two A100s has 40 GB.
    "A100": Profile(1024, 30, ("bf16", "fp16"), 36.0),
    "H100": Profile(1024, 30, ("bf16", "fp16"), 72.0),
}
