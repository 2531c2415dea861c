"""What the sampler integrates: the transformer with its prompts bound in and guidance applied."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from . import attention, sampler, text
from .sampler import Sampling
from .transformer import NewbieTransformer2DModel


class Velocity:
    """The transformer with its prompts bound in and guidance applied; counts its forward passes in `forwards`.

    On a GPU prompt and negative prompt share one batch. On a CPU they run apart, which saves the negative prompt's
    padding.
    """

    def __init__(
        self,
        transformer: NewbieTransformer2DModel,
        conditions: tuple[text.Encoded, text.Encoded | None],
        sampling: Sampling,
        noise: torch.Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.transformer = transformer
        self.sampling = sampling
        self.dtype = dtype
        self.forwards = 0
        positive, negative = conditions
        patch = transformer.config.patch_size
        tokens = noise.shape[2] * noise.shape[3] // patch**2
        self.positive = _Condition.of(transformer, positive, tokens)
        self.negative: _Condition | None = None
        self.both: _Condition | None = None
        if negative is not None:
            batch = len(noise)
            repeated = text.Encoded(
                negative.hidden.expand(batch, -1, -1),
                negative.mask.expand(batch, -1),
                negative.pooled.expand(batch, -1),
            )
            if noise.device.type == "cpu":
                self.negative = _Condition.of(transformer, repeated, tokens)
            else:
                self.both = _Condition.of(transformer, _join(positive, repeated), tokens)

    def __call__(self, state: torch.Tensor, moment: float) -> torch.Tensor:
        """Return the velocity at a moment of a state, both (n, channels, height, width), guided where it should be."""
        if not self.sampling.guided(moment):
            return self._forward(state, moment, self.positive)
        if self.both is not None:
            conditional, unconditional = self._forward(torch.cat((state, state)), moment, self.both).chunk(2)
        else:
            assert self.negative is not None  # noqa: S101 - guided() is false without a negative prompt
            conditional = self._forward(state, moment, self.positive)
            unconditional = self._forward(state, moment, self.negative)
        return sampler.guide(conditional, unconditional, self.sampling)

    def _forward(self, state: torch.Tensor, moment: float, condition: _Condition) -> torch.Tensor:
        self.forwards += 1
        moments = torch.full((len(state),), moment, device=state.device, dtype=torch.float32)
        velocity = self.transformer(
            state.to(self.dtype),
            moments,
            condition.encoded.hidden,
            condition.encoded.mask,
            condition.encoded.pooled,
            layouts=condition.layouts,
        )
        return velocity.to(state.dtype)


@dataclass(frozen=True)
class _Condition:
    """Encoded prompts with the token layouts that they share in every forward pass."""

    encoded: text.Encoded
    layouts: dict[str, attention.TokenLayout]

    @classmethod
    def of(cls, transformer: NewbieTransformer2DModel, encoded: text.Encoded, tokens: int) -> _Condition:
        if len(encoded.mask) == 1:
            encoded = encoded.row(0)
        return cls(encoded, transformer.layouts(encoded.mask, tokens))


def _join(first: text.Encoded, second: text.Encoded) -> text.Encoded:
    """Stack two batches of prompts, padding both to the longer one."""
    longest = max(first.mask.shape[1], second.mask.shape[1])

    def padded(encoded: text.Encoded) -> tuple[torch.Tensor, torch.Tensor]:
        missing = longest - encoded.mask.shape[1]
        pad = torch.nn.functional.pad
        return pad(encoded.hidden, (0, 0, 0, missing)), pad(encoded.mask, (0, missing))

    (hidden, mask), (other_hidden, other_mask) = padded(first), padded(second)
    return text.Encoded(
        torch.cat((hidden, other_hidden)), torch.cat((mask, other_mask)), torch.cat((first.pooled, second.pooled))
    )
