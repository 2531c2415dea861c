"""Prompts to numbers: Gemma-3's second-to-last hidden states for attention, Jina CLIP's pooled vector for adaLN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

MAX_TOKENS = 512
"""NewBie was trained on at most this many Gemma tokens; a longer prompt is cut."""


class Tokenizer(Protocol):
    """What the pipeline asks of a tokenizer: transformers' own fit, and so does `random_weights.ByteTokenizer`."""

    def __call__(self, texts: list[str], **options: Any) -> Any:
        """Return `input_ids` and `attention_mask`."""


@dataclass(frozen=True)
class Encoded:
    """A batch of prompts. hidden: (batch, tokens, width). mask: (batch, tokens) bool. pooled: (batch, pooled width)."""

    hidden: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Encoded:
        """Move all parts to a device, the numbers in a dtype."""
        return Encoded(self.hidden.to(device, dtype), self.mask.to(device), self.pooled.to(device, dtype))

    def row(self, index: int) -> Encoded:
        """Return one prompt without its padding, as a batch of one."""
        length = int(self.mask[index].sum())
        rows = slice(index, index + 1)
        return Encoded(self.hidden[rows, :length], self.mask[rows, :length], self.pooled[rows])


def tokens(tokenizer: Tokenizer, texts: Sequence[str], device: Any) -> Any:
    """Return (ids, mask), both (batch, longest), padded on the right, at most `MAX_TOKENS` long."""
    batch = tokenizer(
        list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, padding_side="right", return_tensors="pt"
    )
    return batch["input_ids"].to(device), batch["attention_mask"].to(device)


def hidden_states(gemma: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return Gemma's second-to-last hidden states, (batch, tokens, width).

    Only ids and mask go in: the token types that Gemma-3 also takes need a newer torch than 2.4.
    """
    return gemma(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states[-2]
