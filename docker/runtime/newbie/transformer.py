"""NewBie's Next-DiT: diffusers' Lumina2 transformer with a branch for pooled CLIP text.

The pooled text is normalised, projected, joined with the timestep embedding and projected back to its width; the result
takes the timestep embedding's place in every adaLN (NewBie-image-Exp0.1, `models/model.py`). Where diffusers builds
each sample's sequence in a Python loop, this forward keeps captions and picture tokens in fixed places and masks the
captions' padding: attention sees the same tokens with the same rotary positions, so the output is the same, and a batch
of 512 costs no more launches than one of 2.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_lumina2 import Lumina2Transformer2DModel
from torch import nn

from .attention import AttentionCounter, NewbieAttention, Rotation, TokenLayout


class NewbieTransformer2DModel(Lumina2Transformer2DModel):
    """Lumina2 transformer with NewBie's pooled-text branch; `pooled_projection_dim=None` leaves the branch out.

    Timesteps run from 0 (noise) to 1 (picture); the output is the velocity from noise towards the picture.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        patch_size: int = 2,
        in_channels: int = 16,
        out_channels: int | None = None,
        hidden_size: int = 2304,
        num_layers: int = 36,
        num_refiner_layers: int = 2,
        num_attention_heads: int = 24,
        num_kv_heads: int = 8,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = 1e-5,
        scaling_factor: float = 1.0,
        axes_dim_rope: tuple[int, int, int] = (32, 32, 32),
        axes_lens: tuple[int, int, int] = (1024, 512, 512),
        cap_feat_dim: int = 2560,
        pooled_projection_dim: int | None = 1024,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            patch_size=patch_size,
            in_channels=in_channels,
            out_channels=out_channels,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_refiner_layers=num_refiner_layers,
            num_attention_heads=num_attention_heads,
            num_kv_heads=num_kv_heads,
            multiple_of=multiple_of,
            ffn_dim_multiplier=ffn_dim_multiplier,
            norm_eps=norm_eps,
            scaling_factor=scaling_factor,
            axes_dim_rope=axes_dim_rope,
            axes_lens=axes_lens,
            cap_feat_dim=cap_feat_dim,
        )
        if pooled_projection_dim is not None:
            width = min(hidden_size, 1024)
            self.clip_text_pooled_proj = nn.Sequential(
                RMSNorm(pooled_projection_dim, eps=norm_eps),
                nn.Linear(pooled_projection_dim, pooled_projection_dim),
            )
            self.time_text_embed = nn.Sequential(nn.SiLU(), nn.Linear(width + pooled_projection_dim, width))
        self.counter = AttentionCounter()
        self.set_attention("sdpa")

    def blocks(self) -> list[nn.Module]:
        """Return all transformer blocks, in the order in which they run."""
        return [*self.context_refiner, *self.noise_refiner, *self.layers]

    def set_attention(self, backend: str) -> None:
        """Choose the kernel for every block, `flash` or `sdpa`. Raises AttentionError if flash-attn does not import."""
        self.attention_backend = backend
        processor = NewbieAttention(backend, self.counter)
        for block in self.blocks():
            block.attn.processor = processor

    def layouts(self, caption_mask: torch.Tensor, picture_tokens: int) -> dict[str, TokenLayout]:
        """Describe the three token batches of a forward pass; compute it once where many passes share a caption."""
        packed = self.attention_backend == "flash"
        batch = caption_mask.shape[0]
        caption = caption_mask.bool()
        joint = torch.nn.functional.pad(caption, (0, picture_tokens), value=True)
        return {
            "caption": TokenLayout.padded(caption, packed=packed),
            "picture": TokenLayout.full(batch, picture_tokens, caption.device, packed=packed),
            "joint": TokenLayout.padded(joint, packed=packed),
        }

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
        pooled_projections: torch.Tensor | None = None,
        layouts: dict[str, TokenLayout] | None = None,
    ) -> torch.Tensor:
        """Return the velocity, shaped as `hidden_states`.

        hidden_states: (batch, channels, height, width), sides divisible by the patch size.
        timestep: (batch,), 0 = noise, 1 = picture.
        encoder_hidden_states: (batch, text tokens, cap_feat_dim), padded on the right.
        encoder_attention_mask: (batch, text tokens), true for real tokens.
        pooled_projections: (batch, pooled_projection_dim).
        layouts: what `layouts` returned for this mask and picture size.
        """
        height, width = hidden_states.shape[2:]
        patch = self.config.patch_size
        rows, columns = height // patch, width // patch
        condition, caption = self.time_caption_embed(hidden_states, timestep, encoder_hidden_states)
        if self.config.pooled_projection_dim is not None:
            pooled = self.clip_text_pooled_proj(pooled_projections)
            condition = self.time_text_embed(torch.cat((condition, pooled), dim=-1))
        layouts = layouts or self.layouts(encoder_attention_mask, rows * columns)
        caption_angles, picture_angles = self._rotations(encoder_attention_mask, rows, columns)

        for block in self.context_refiner:
            caption = block(caption, layouts["caption"], caption_angles)
        picture = self.x_embedder(_patches(hidden_states, patch))
        for block in self.noise_refiner:
            picture = block(picture, layouts["picture"], picture_angles, condition)

        text_tokens = caption.shape[1]
        joint = torch.cat((caption, picture), dim=1)
        angles = tuple(
            torch.cat((text.expand(joint.shape[0], -1, -1), image), dim=1)
            for text, image in zip(caption_angles, picture_angles)  # noqa: B905 - Python 3.9
        )
        for block in self.layers:
            joint = block(joint, layouts["joint"], angles, condition)
        velocity = self.norm_out(joint[:, text_tokens:], condition)
        return _picture(velocity, rows, columns, patch)

    def _rotations(self, caption_mask: torch.Tensor, rows: int, columns: int) -> tuple[Rotation, Rotation]:
        """Return the rotary angles of captions and picture tokens.

        A caption's token n stands at (n, 0, 0); the picture's token in row r and column c behind a caption of n tokens
        stands at (n, r, c).
        """
        batch, text_tokens = caption_mask.shape
        device = caption_mask.device
        text = torch.arange(text_tokens, device=device, dtype=torch.float32)[None]
        row = torch.arange(rows, device=device, dtype=torch.float32).repeat_interleave(columns)[None]
        column = torch.arange(columns, device=device, dtype=torch.float32).repeat(rows)[None]
        length = caption_mask.sum(dim=1, keepdim=True).float().expand(-1, rows * columns)
        nought = torch.zeros_like(text)
        caption = self._angles((text, nought, nought))
        picture = self._angles((length, row.expand(batch, -1), column.expand(batch, -1)))
        return (caption.cos(), caption.sin()), (picture.cos(), picture.sin())

    def _angles(self, positions: tuple[torch.Tensor, ...]) -> torch.Tensor:
        theta = self.rope_embedder.theta
        parts: list[Any] = []
        for position, width in zip(positions, self.config.axes_dim_rope):  # noqa: B905 - Python 3.9
            steps = torch.arange(0, width, 2, device=position.device, dtype=torch.float32) / width
            parts.append(position.unsqueeze(-1) * theta**-steps)
        return torch.cat(parts, dim=-1)


def _patches(latents: torch.Tensor, patch: int) -> torch.Tensor:
    """Cut (batch, channels, height, width) into (batch, tokens, patch * patch * channels)."""
    batch, channels, height, width = latents.shape
    cut = latents.view(batch, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def _picture(tokens: torch.Tensor, rows: int, columns: int, patch: int) -> torch.Tensor:
    """Undo `_patches`."""
    batch = tokens.shape[0]
    cut = tokens.view(batch, rows, columns, patch, patch, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch, columns * patch)
