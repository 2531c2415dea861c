"""Flow-matching sampling: integrate the model's velocity from noise (time 0) to picture (time 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from .errors import NewbieError

SOLVERS = ("midpoint", "euler")
Velocity = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Sampling:
    """How to draw; the defaults are NewBie's own.

    steps: intervals between noise and picture; midpoint calls the model twice in each.
    shift: how much of the work goes to the noisy end (1 = evenly).
    guidance: classifier-free guidance scale; 1 leaves it out, and with it half of the work.
    guidance_until: time after which the prompt alone drives (truncation); 1 keeps guidance to the end.
    renorm: guided velocities are never longer than this many times the unguided one; 0 sets no limit.
    """

    steps: int = 28
    solver: str = "midpoint"
    shift: float = 6.0
    guidance: float = 5.0
    guidance_until: float = 1.0
    renorm: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"{name} {value!r} must be {bound}"
            for name, value, bound, good in (
                ("steps", self.steps, "1 to 1000", 1 <= self.steps <= 1000),
                ("solver", self.solver, f"one of {', '.join(SOLVERS)}", self.solver in SOLVERS),
                ("shift", self.shift, "above 0", self.shift > 0),
                ("guidance", self.guidance, "1 or more", self.guidance >= 1),
                ("guidance_until", self.guidance_until, "0 to 1", 0 <= self.guidance_until <= 1),
                ("renorm", self.renorm, "0 or more", self.renorm >= 0),
            )
            if not good
        ]
        if problems:
            raise NewbieError("; ".join(problems))

    @property
    def evaluations(self) -> int:
        """Calls of the velocity for one picture."""
        return self.steps * (2 if self.solver == "midpoint" else 1)

    def guided(self, time: float) -> bool:
        """Say whether guidance applies at a time."""
        return self.guidance > 1 and time < self.guidance_until

    def to_json(self) -> dict[str, Any]:
        """Return the settings as `model_index.json` and a picture's metadata hold them."""
        return asdict(self)


def times(steps: int, shift: float) -> list[float]:
    """Return the `steps + 1` times from 0 to 1; a shift above 1 spends more of them near the noise."""
    even = [n / steps for n in range(steps + 1)]
    return [u / (u + shift * (1 - u)) for u in even]


def integrate(
    velocity: Velocity,
    noise: torch.Tensor,
    sampling: Sampling,
    on_step: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Return the latents at time 1. The state stays in the dtype of `noise`; on_step is told (step, steps)."""
    state = noise
    grid = times(sampling.steps, sampling.shift)
    for step, (start, end) in enumerate(zip(grid, grid[1:]), 1):  # noqa: B905, RUF007 - Python 3.9
        slope = velocity(state, start)
        if sampling.solver == "midpoint":
            slope = velocity(state + slope * ((end - start) / 2), (start + end) / 2)
        state = state + slope * (end - start)
        if on_step is not None:
            on_step(step, sampling.steps)
    return state


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Push a velocity away from what the model does without a prompt. Both: (batch, channels, height, width)."""
    guided = unconditional + sampling.guidance * (conditional - unconditional)
    if sampling.renorm:
        limit = sampling.renorm * torch.linalg.vector_norm(conditional, dim=(1, 2, 3), keepdim=True)
        length = torch.linalg.vector_norm(guided, dim=(1, 2, 3), keepdim=True)
        guided = guided * (limit / length).clamp(max=1.0)
    return guided
