"""The full-size model with seeded random weights: what it draws is noise, but time and memory are the real ones.

Sizes of the transformer, of the VAE and of the text encoders are those of NewBie-image-Exp0.1, FLUX.1-dev, Gemma-3-4B
and jina-clip-v2; the last ones are `JinaClipTextConfig`'s defaults.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .errors import NewbieError
from .jina_clip import JinaClipTextConfig, JinaClipTextModel
from .pipeline import DTYPES, Parts
from .sampler import Sampling
from .text import MAX_TOKENS
from .transformer import NewbieTransformer2DModel
from .weights import without_initialisation

SEED = 20_251_128
TRANSFORMER: dict[str, Any] = {}
"""`NewbieTransformer2DModel`'s defaults are NewBie's sizes: 3.49 billion parameters."""
GEMMA: dict[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 1024,
    "query_pre_attn_scalar": 256,
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": True,
}


class ByteTokenizer:
    """One token per byte of UTF-8, for a model whose vocabulary means nothing."""

    padding = 0
    start = 1
    first_byte = 2

    def __call__(
        self, texts: list[str], *, truncation: bool = False, max_length: int = MAX_TOKENS, **_: Any
    ) -> dict[str, Any]:
        """Return ids and mask, padded on the right: tensors (batch, longest)."""
        rows = [[self.start, *(byte + self.first_byte for byte in text.encode())] for text in texts]
        if truncation:
            rows = [row[:max_length] for row in rows]
        longest = max(len(row) for row in rows)
        ids = [row + [self.padding] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def build(name: str, device: str, dtype: str, seed: int = SEED) -> Parts:
    """Return the parts of a full-size model with random weights; the text encoders wait on the CPU.

    name: `newbie-3b`. device: where the numbers are drawn; the same seed gives the same weights on the same device.
    Raises NewbieError for an unknown name.
    """
    if name != "newbie-3b":
        raise NewbieError(f"no model {name!r} with random weights; there is newbie-3b")
    kinds = {
        "text_encoder": _gemma,
        "text_encoder_2": lambda: JinaClipTextModel(JinaClipTextConfig()),
        "transformer": lambda: NewbieTransformer2DModel(**TRANSFORMER),
        "vae": _vae,
    }
    generator = torch.Generator(device).manual_seed(seed)
    modules: dict[str, Any] = {}
    for part, make in kinds.items():
        # One part after another, so that a text encoder has left the GPU before the transformer comes.
        module = _empty(make, torch.device(device), DTYPES[dtype])
        fill_randomly(module, generator)
        modules[part] = module.to("cpu") if part.startswith("text") else module
    tokenizer = ByteTokenizer()
    return Parts(tokenizer=tokenizer, tokenizer_2=tokenizer, sampling=Sampling(), **modules)


def fill_randomly(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every matrix from a normal distribution that keeps activations at their size; gains 1, biases 0."""
    for name, weight in module.named_parameters():
        if weight.ndim > 1:
            weight.data.normal_(std=weight[0].numel() ** -0.5, generator=generator)
        else:
            # Gemma's norms multiply by 1 + weight.
            gain = name.endswith("weight") and not type(module).__name__.startswith("Gemma")
            weight.data.fill_(1.0 if gain else 0.0)


def _empty(make: Any, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Build a module on a device with its weights in a dtype and not yet filled; its buffers are real, in fp32."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with without_initialisation(), device:
            return make().eval().requires_grad_(False)  # type: ignore[no-any-return]
    finally:
        torch.set_default_dtype(usual)


def _gemma() -> nn.Module:
    from transformers import Gemma3TextConfig, Gemma3TextModel

    config = Gemma3TextConfig(**GEMMA)
    config._attn_implementation = "sdpa"
    return Gemma3TextModel(config)


def _vae() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**VAE)
