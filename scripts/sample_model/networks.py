"""The sample model's networks: the classes of the full model at small size, 16 MB of bf16 weights together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from newbie.jina_clip import JinaClipTextConfig, JinaClipTextModel
from newbie.transformer import NewbieTransformer2DModel
from torch import nn
from transformers import Gemma3TextConfig, Gemma3TextModel

from .tokenizer import VOCABULARY

VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [32, 48, 64, 96],
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 16,
    "sample_size": 128,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
    "force_upcast": False,
}
GEMMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,  # the second-to-last hidden states are read: the last layer only keeps the interface
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "sliding_window": 512,
    "query_pre_attn_scalar": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
JINA = JinaClipTextConfig(
    vocab_size=VOCABULARY,
    hidden_size=96,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=192,
    pad_token_id=0,
)
TRANSFORMER: dict[str, Any] = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 16,
    "hidden_size": 256,
    "num_layers": 5,
    "num_refiner_layers": 1,
    "num_attention_heads": 4,  # head dim 64: flash-attn has kernels for it in every build of this project
    "num_kv_heads": 2,
    "multiple_of": 64,
    "ffn_dim_multiplier": 0.375,
    "axes_dim_rope": [24, 20, 20],
    "axes_lens": [512, 64, 64],
    "cap_feat_dim": 128,
    "pooled_projection_dim": 96,
}


@dataclass
class Networks:
    """What the second stage trains together."""

    gemma: Any
    jina: JinaClipTextModel
    transformer: NewbieTransformer2DModel

    def modules(self) -> list[nn.Module]:
        """Return them in a fixed order."""
        return [self.gemma, self.jina, self.transformer]

    def to(self, device: torch.device) -> Networks:
        """Move all of them."""
        for module in self.modules():
            module.to(device)
        return self


def vae() -> AutoencoderKL:
    """Return an untrained VAE."""
    return AutoencoderKL(**VAE)


def networks() -> Networks:
    """Return untrained text encoders and transformer; every block starts as the identity (its gates are nought)."""
    config = Gemma3TextConfig(**GEMMA)
    config._attn_implementation = "sdpa"
    gemma = Gemma3TextModel(config)
    nn.init.normal_(gemma.embed_tokens.weight, std=config.hidden_size**-0.5)
    jina = JinaClipTextModel(JINA)
    nn.init.normal_(jina.embeddings["word_embeddings"].weight, std=0.5)
    transformer = NewbieTransformer2DModel(**TRANSFORMER)
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in transformer.blocks():
        if block.modulation:
            nn.init.zeros_(block.norm1.linear.weight)
            nn.init.zeros_(block.norm1.linear.bias)
    for layer in (transformer.norm_out.linear_1, transformer.norm_out.linear_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return Networks(gemma, jina, transformer)


def parameters(*modules: nn.Module) -> int:
    """Return the number of weights."""
    return sum(tensor.numel() for module in modules for tensor in module.parameters())
