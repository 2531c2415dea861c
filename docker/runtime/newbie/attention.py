"""Attention for the Next-DiT: flash-attn's variable-length kernel, or PyTorch's own, counted call by call.

diffusers 0.36 has a switch for its attention backend that Lumina2 ignores, so this processor takes the place of the
model's own one. Keys and values may have fewer heads than queries (GQA). Padding never reaches the flash kernel: real
tokens are packed, and `cu_seqlens` says where each sequence starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as functional

from .errors import AttentionError

BACKENDS = ("auto", "flash", "sdpa")
Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of the rotary angles, each (batch or 1, tokens, head_dim / 2), float32."""


@dataclass
class AttentionCounter:
    """How many attention calls each kernel has answered since the last reset."""

    calls: dict[str, int] = field(default_factory=lambda: {"flash": 0, "sdpa": 0})

    def reset(self) -> None:
        """Start counting again from nought."""
        self.calls = {"flash": 0, "sdpa": 0}

    def require(self, backend: str, calls: int) -> None:
        """Raise AttentionError unless exactly `calls` calls were answered, all of them by `backend`."""
        wanted = {"flash": 0, "sdpa": 0, backend: calls}
        if self.calls != wanted:
            raise AttentionError(
                f"asked for {calls} attention calls by {backend}, counted {self.calls}: the model did not run "
                "the attention that was asked for. Something replaced its attention processors."
            )


@dataclass(frozen=True)
class TokenLayout:
    """Which tokens of a padded batch are real.

    mask: (batch, tokens) bool, or None where all are real.
    indices: positions of the real tokens in the flattened batch; None where all are real or only SDPA will run.
    cu_seqlens: (batch + 1) int32, start of each sequence among the packed tokens; None where only SDPA will run.
    longest: number of tokens of the longest sequence.
    """

    mask: torch.Tensor | None
    indices: torch.Tensor | None = None
    cu_seqlens: torch.Tensor | None = None
    longest: int = 0

    @classmethod
    def padded(cls, mask: torch.Tensor, *, packed: bool) -> TokenLayout:
        """Describe a batch by its mask. packed: prepare what the variable-length kernel needs; waits for the device."""
        if not packed:
            return cls(mask)
        lengths = mask.sum(dim=1)
        starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        full = bool(mask.all())
        indices = None if full else mask.flatten().nonzero().squeeze(1)
        return cls(None if full else mask, indices, starts, int(lengths.max()))

    @classmethod
    def full(cls, batch: int, tokens: int, device: Any, *, packed: bool) -> TokenLayout:
        """Describe a batch without padding."""
        if not packed:
            return cls(None)
        starts = torch.arange(batch + 1, dtype=torch.int32, device=device) * tokens
        return cls(None, None, starts, tokens)


def rotate(states: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Turn each pair of neighbouring channels by its token's angle. states: (batch, tokens, heads, head_dim)."""
    cosine, sine = (part.unsqueeze(2) for part in rotation)
    first, second = states.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((first * cosine - second * sine, first * sine + second * cosine), dim=-1)
    return turned.flatten(-2).to(states.dtype)


class NewbieAttention:
    """Attention processor for the model's blocks: `backend` is what runs, `counter` keeps the evidence."""

    def __init__(self, backend: str, counter: AttentionCounter | None = None) -> None:
        self.backend = backend
        self.counter = counter
        self._flash = flash_attention() if backend == "flash" else None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: TokenLayout,
        image_rotary_emb: Rotation,
    ) -> torch.Tensor:
        """Attend within each sequence of a batch; the arguments are those that diffusers' blocks pass."""
        batch, tokens, _ = hidden_states.shape
        query = attn.to_q(hidden_states)
        head_dim = query.shape[-1] // attn.heads
        query = query.view(batch, tokens, attn.heads, head_dim)
        key = attn.to_k(encoder_hidden_states).view(batch, tokens, -1, head_dim)
        value = attn.to_v(encoder_hidden_states).view(batch, tokens, -1, head_dim)
        query = rotate(attn.norm_q(query).to(value.dtype), image_rotary_emb)
        key = rotate(attn.norm_k(key).to(value.dtype), image_rotary_emb)
        run = self._run_sdpa if self._flash is None else self._run_flash
        mixed = run(query, key, value, attention_mask, attn.scale)
        if self.counter is not None:
            self.counter.calls[self.backend] += 1
        return attn.to_out[1](attn.to_out[0](mixed.flatten(2)))

    def _run_flash(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: TokenLayout, scale: float
    ) -> torch.Tensor:
        batch, tokens = query.shape[:2]
        packed = [part.flatten(0, 1) for part in (query, key, value)]
        if layout.indices is not None:
            packed = [part.index_select(0, layout.indices) for part in packed]
        mixed = self._flash(
            *packed,
            cu_seqlens_q=layout.cu_seqlens,
            cu_seqlens_k=layout.cu_seqlens,
            max_seqlen_q=layout.longest,
            max_seqlen_k=layout.longest,
            causal=False,
            dropout_p=0.0,
            softmax_scale=scale,
        )
        if layout.indices is not None:
            padded = mixed.new_zeros(batch * tokens, *mixed.shape[1:])
            mixed = padded.index_copy_(0, layout.indices, mixed)
        return mixed.unflatten(0, (batch, tokens))

    @staticmethod
    def _run_sdpa(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: TokenLayout, scale: float
    ) -> torch.Tensor:
        repeats = query.shape[2] // key.shape[2]
        if repeats > 1:
            key, value = (part.repeat_interleave(repeats, dim=2) for part in (key, value))
        mask = None if layout.mask is None else layout.mask[:, None, None, :]
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        return mixed.transpose(1, 2)


def flash_attention() -> Callable[..., torch.Tensor]:
    """Return flash-attn's variable-length function. Raises AttentionError where the package does not import."""
    try:
        return importlib.import_module("flash_attn").flash_attn_varlen_func
    except (ImportError, OSError, AttributeError) as error:
        raise AttentionError(f"flash-attn cannot be used: {error}. `--attention sdpa` draws without it.") from error


def obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Say why flash-attn cannot run on a device in a dtype, or None if it can."""
    if device.type != "cuda":
        return f"flash-attn runs on NVIDIA GPUs only, the model is on {device.type}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"flash-attn computes in bf16 and fp16 only, the model is in {dtype}"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"flash-attn 2 needs compute capability 8.0 (Ampere), this GPU has {capability[0]}.{capability[1]}"
    return None


def choose(requested: str, device: torch.device, dtype: torch.dtype) -> str:
    """Return the backend to run, `flash` or `sdpa`.

    `auto` takes flash-attn where it can run and imports; `flash` raises AttentionError where it cannot.
    """
    if requested not in BACKENDS:
        raise AttentionError(f"unknown attention {requested!r}; it is one of {', '.join(BACKENDS)}")
    if requested == "sdpa":
        return "sdpa"
    why_not = obstacle(device, dtype)
    if requested == "flash" and why_not:
        raise AttentionError(f"{why_not}. `--attention sdpa` draws without flash-attn.")
    if why_not:
        return "sdpa"
    try:
        flash_attention()
    except AttentionError:
        if requested == "flash":
            raise
        return "sdpa"
    return "flash"
