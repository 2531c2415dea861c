"""What both training stages share: a clock that sets the learning rate, an average of the weights, progress lines."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import torch
from torch import nn


class Clock:
    """Training time left. Learning rates follow it, so that a stage ends well-annealed however fast the machine is."""

    def __init__(self, seconds: float, max_steps: int | None = None) -> None:
        self.seconds = seconds
        self.max_steps = max_steps
        self.started = time.monotonic()
        self.step = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """Share of the stage that is over, 0 to 1."""
        share = self.elapsed / self.seconds
        if self.max_steps:
            share = max(share, self.step / self.max_steps)
        return min(1.0, share)

    def running(self) -> bool:
        """Say whether to take another step."""
        return self.progress < 1.0

    def rate(self, peak: float, warmup_steps: int = 200) -> float:
        """Return the learning rate: a short linear rise, then a cosine down to a hundredth."""
        rise = min(1.0, (self.step + 1) / warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * self.progress))
        return peak * rise * (0.01 + 0.99 * fall)


class Average:
    """Exponential moving average of modules' weights; `swap` puts it into the modules and takes theirs out."""

    def __init__(self, modules: Iterable[nn.Module], decay: float) -> None:
        self.weights = [weight for module in modules for weight in module.parameters()]
        self.kept = [weight.detach().clone() for weight in self.weights]
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the present weights; the first steps are longer, so that the start is forgotten."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(self.kept, [weight.detach() for weight in self.weights], share)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average with the present weights; a second call undoes the first."""
        for weight, kept in zip(self.weights, self.kept, strict=True):
            present = weight.detach().clone()
            weight.copy_(kept)
            kept.copy_(present)


def say(text: str) -> None:
    """Print a progress line at once."""
    print(text, flush=True)  # noqa: T201 - the training script speaks on standard output


def autocast(device: torch.device) -> torch.autocast:
    """Return bf16 autocast on a GPU and nothing on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
