"""What a prompt says, as class numbers, and the heads that make the text encoders learn to say it.

Real text encoders arrive trained on language; these two begin with nothing, and a picture's loss alone teaches them the
small things last (an expression is two per cent of a picture). While they train, a linear head on each reads every
attribute back from the prompt's encoding. The heads are thrown away afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from assay_checks import cartoon
from torch import nn
from torch.nn import functional

ABSENT = "absent"
TABLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("background", tuple(cartoon.BACKGROUNDS)),
    *(
        (f"{position}.{name}", (ABSENT, *values))
        for position in cartoon.POSITIONS
        for name, values in (
            ("hair_colour", tuple(cartoon.HAIR_COLOURS)),
            ("eye_colour", tuple(cartoon.EYE_COLOURS)),
            ("clothing_colour", tuple(cartoon.CLOTHING_COLOURS)),
            ("hair_style", cartoon.HAIR_STYLES),
            ("expression", cartoon.EXPRESSIONS),
        )
    ),
)
"""Each attribute of a scene with its classes; a place where nobody stands is a class of its own."""


def of(scene: cartoon.Scene) -> list[int]:
    """Return a scene's class numbers, one per table."""
    attributes = scene.attributes()
    return [values.index(attributes.get(name, ABSENT)) for name, values in TABLES]


class Heads(nn.Module):
    """One linear head on each text encoder: the mean of Gemma's hidden states, and the pooled vector of the other."""

    def __init__(self, hidden: int, pooled: int) -> None:
        super().__init__()
        classes = sum(len(values) for _name, values in TABLES)
        self.heads = nn.ModuleList([nn.Linear(hidden, classes), nn.Linear(pooled, classes)])

    def loss(self, hidden: Any, mask: Any, pooled: Any, labels: Any, use: Any) -> Any:
        """Return the mean cross-entropy over attributes and encoders.

        hidden: (batch, tokens, width). mask: (batch, tokens). pooled: (batch, width). labels: (batch, tables).
        use: (batch,), which rows have a prompt at all.
        """
        weight = mask[..., None].to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
        total = hidden.new_zeros((), dtype=torch.float32)
        for head, encoding in zip(self.heads, (mean, pooled), strict=True):
            scores = head(encoding).float().split([len(values) for _name, values in TABLES], dim=1)
            for number, score in enumerate(scores):
                losses = functional.cross_entropy(score, labels[:, number], reduction="none")
                total = total + (losses * use).sum() / use.sum().clamp(min=1)
        return total / (len(self.heads) * len(TABLES))
