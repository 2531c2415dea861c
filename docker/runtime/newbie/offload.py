"""Decide which parts of the model stay on the GPU, so that drawing fits into a memory budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import MemoryBudgetError

GIB = 1024**3
TEXT_PARTS = ("text_encoder", "text_encoder_2")
PICTURE_PARTS = ("transformer", "vae")
BYTES_PER_PIXEL = 2600
"""Activations at the peak, the VAE's decoding: 9.6 GiB less 7.0 GiB of weights at 1024 x 1024, measured in bf16."""


@dataclass(frozen=True)
class Residency:
    """Where the text encoders live: `text_on_gpu` keeps them there, else they come over for each prompt and go back."""

    text_on_gpu: bool
    peak_bytes: int


def plan(sizes: Mapping[str, int], budget_bytes: int, pixels: int) -> Residency:
    """Choose the residency. sizes: bytes of each part's weights; pixels: width x height x pictures drawn together.

    Raises MemoryBudgetError where even the parts that must be together exceed the budget.
    """
    text = sum(sizes[part] for part in TEXT_PARTS)
    picture = sum(sizes[part] for part in PICTURE_PARTS)
    activations = pixels * BYTES_PER_PIXEL
    together = text + picture + activations
    if together <= budget_bytes:
        return Residency(True, together)
    apart = max(text, picture + activations)
    if apart <= budget_bytes:
        return Residency(False, apart)
    raise MemoryBudgetError(
        f"{apart / GIB:.1f} GiB are needed even with the text encoders moved off the GPU ({_table(sizes)}, activations "
        f"{activations / GIB:.1f}), the budget is {budget_bytes / GIB:.1f}. "
        "Draw smaller pictures or raise --memory-budget."
    )


def _table(sizes: Mapping[str, int]) -> str:
    gib: dict[str, float] = {part: size / GIB for part, size in sizes.items()}
    return ", ".join(f"{part} {size:.1f}" for part, size in gib.items())
