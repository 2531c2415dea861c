"""Jina CLIP v2's text tower: an XLM-RoBERTa encoder with rotary positions and mean pooling.

transformers has no class for it, and Jina's own code comes with the weights from the network. Sizes default to Jina
CLIP v2's. Modules are named as in its checkpoint, below the prefix that the loader strips.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import nn


@dataclass(frozen=True)
class JinaClipTextConfig:
    """Sizes of the tower; the defaults are those of jina-clip-v2 (561 million parameters)."""

    vocab_size: int = 250002
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    type_vocab_size: int = 1
    rotary_emb_base: float = 20000.0
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the content of `text_encoder_2/config.json`."""
        return {"model_type": "jina_clip_text", **asdict(self)}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> JinaClipTextConfig:
        """Read `text_encoder_2/config.json`: this module's own, or Jina's, which names no sizes: the defaults."""
        return cls(**{name: raw[name] for name in cls.__dataclass_fields__ if name in raw})


class JinaClipTextModel(nn.Module):
    """Token ids in, one vector per text out."""

    def __init__(self, config: JinaClipTextConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id),
                "token_type_embeddings": nn.Embedding(config.type_vocab_size, width),
            }
        )
        self.emb_ln = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList([_Block(config) for _ in range(config.num_hidden_layers)])}
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return (batch, hidden_size), the mean over real tokens. Both arguments: (batch, tokens)."""
        states = self.embeddings["word_embeddings"](input_ids) + self.embeddings["token_type_embeddings"].weight[0]
        states = self.emb_ln(states)
        rotation = self._rotation(input_ids.shape[1], states)
        mask = attention_mask.bool()[:, None, None, :]
        for layer in self.encoder["layers"]:
            states = layer(states, mask, rotation)
        weights = attention_mask.to(states.dtype).unsqueeze(-1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)

    def _rotation(self, tokens: int, states: torch.Tensor) -> Any:
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        steps = torch.arange(0, head_dim, 2, device=states.device, dtype=torch.float32) / head_dim
        positions = torch.arange(tokens, device=states.device, dtype=torch.float32)
        angles = torch.outer(positions, self.config.rotary_emb_base**-steps).repeat(1, 2)
        return angles.cos().to(states.dtype), angles.sin().to(states.dtype)


class _Block(nn.Module):
    """One layer; normalised after each residual sum, as in RoBERTa."""

    def __init__(self, config: JinaClipTextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.mixer = nn.ModuleDict({"Wqkv": nn.Linear(width, 3 * width), "out_proj": nn.Linear(width, width)})
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, config.intermediate_size), "fc2": nn.Linear(config.intermediate_size, width)}
        )
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, rotation: Any) -> torch.Tensor:
        query, key, value = self.mixer["Wqkv"](states).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        mixed = functional.scaled_dot_product_attention(
            _rotate_halves(query, rotation), _rotate_halves(key, rotation), value, attn_mask=mask
        )
        states = self.norm1(states + self.mixer["out_proj"](mixed.transpose(1, 2).flatten(2)))
        return self.norm2(states + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](states))))


def _rotate_halves(states: torch.Tensor, rotation: Any) -> torch.Tensor:
    """Turn channel n and channel n + half by the same angle. states: (batch, heads, tokens, head_dim)."""
    cosine, sine = rotation
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat((-second, first), dim=-1) * sine
