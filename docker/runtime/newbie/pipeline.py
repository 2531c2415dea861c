"""The pipeline: prompts in, pictures out, with a report of what ran and what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from . import attention, offload, sampler, text
from .errors import NewbieError, PictureError
from .sampler import Sampling
from .transformer import NewbieTransformer2DModel
from .velocity import Velocity

SYSTEM_PROMPT = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment "
    "based on textual prompts or user prompts. <Prompt Start> "
)
"""What Lumina2 puts before a prompt for Gemma; Jina CLIP sees the prompt alone."""

LATENT_CHANNELS = 16
DECODED_PIXELS = 1024 * 1024
"""Pixels that the VAE decodes at a time: its activations are the peak of memory."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass
class Parts:
    """The model's parts, all of one dtype; `sampling` and `system_prompt` are what the weights were trained for."""

    tokenizer: Any
    text_encoder: Any
    tokenizer_2: Any
    text_encoder_2: Any
    transformer: NewbieTransformer2DModel
    vae: Any
    sampling: Sampling = field(default_factory=Sampling)
    system_prompt: str = SYSTEM_PROMPT

    def modules(self) -> dict[str, torch.nn.Module]:
        """Return the parts that hold weights, by the names of their folders."""
        names = (*offload.TEXT_PARTS, *offload.PICTURE_PARTS)
        return {name: getattr(self, name) for name in names}

    def sizes(self) -> dict[str, int]:
        """Return the bytes that each part's weights take."""
        return {
            name: sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
            for name, module in self.modules().items()
        }


@dataclass(frozen=True)
class Report:
    """What a drawing took. seconds: for all its pictures. peak_bytes: GPU memory, None on a CPU."""

    seconds: float
    pictures: int
    attention: str
    attention_calls: dict[str, int]
    peak_bytes: int | None
    device: str
    dtype: str
    text_on_gpu: bool

    @property
    def seconds_per_picture(self) -> float:
        """Return the mean time of one picture."""
        return self.seconds / self.pictures


@dataclass(frozen=True)
class Drawing:
    """Pictures, (n, height, width, 3) uint8 on the CPU, the latents that they were decoded from, and the report."""

    pictures: torch.Tensor
    latents: torch.Tensor
    report: Report


class NewbiePipeline:
    """Draws with one set of parts on one device in one dtype.

    attention: `auto`, `flash` or `sdpa`; what was asked for by name either runs in every block or is an error.
    memory_budget: GiB of GPU memory that drawing may take; text encoders leave the GPU when it asks for that.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        device: str | torch.device = "cpu",
        dtype: str = "fp32",
        attention_backend: str = "auto",
        memory_budget: float = 16.0,
    ) -> None:
        if dtype not in DTYPES:
            raise NewbieError(f"unknown dtype {dtype!r}; it is one of {', '.join(DTYPES)}")
        self.parts = parts
        self.device = torch.device(device)
        self.dtype_name = dtype
        self.dtype = DTYPES[dtype]
        self.memory_budget = memory_budget
        self.backend = attention.choose(attention_backend, self.device, self.dtype)
        parts.transformer.set_attention(self.backend)
        for module in parts.modules().values():
            cast_weights(module, self.dtype).eval().requires_grad_(False)
        for name in offload.PICTURE_PARTS:
            parts.modules()[name].to(self.device)

    @property
    def pixels_per_token(self) -> int:
        """Side of the square of pixels that one token of the transformer stands for."""
        return self._latent_side * self.parts.transformer.config.patch_size

    @property
    def native_side(self) -> int:
        """Width and height, in pixels, of the pictures that the model was made for."""
        return int(self.parts.transformer.config.sample_size) * self._latent_side

    @property
    def device_name(self) -> str:
        """Name of the GPU, or `CPU`."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def tokens_cut(self, prompt: str) -> int:
        """Return how many tokens of a prompt are past the limit and will not be seen."""
        ids = self.parts.tokenizer([self.parts.system_prompt + prompt], padding=True)["input_ids"]
        return max(0, len(ids[0]) - text.MAX_TOKENS)

    @property
    def _latent_side(self) -> int:
        return 2 ** (len(self.parts.vae.config.block_out_channels) - 1)

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        height: int,
        width: int,
        negative: str = "",
        sampling: Sampling | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Drawing:
        """Draw one picture for each prompt.

        The noise of picture n comes from `seed + n`, on the CPU in fp32, so that it is the same for every device and
        dtype. Raises PictureError where a number is infinite or not a number, AttentionError where another attention
        than the chosen one ran, MemoryBudgetError, and NewbieError for sides that are not divisible by a token's side.
        """
        side = self.pixels_per_token
        if not prompts:
            raise NewbieError("there is no prompt to draw")
        if height % side or width % side or min(height, width) < side:
            raise NewbieError(f"{width} x {height} pixels cannot be drawn: width and height are multiples of {side}")
        sampling = sampling or self.parts.sampling
        residency = self._residency(height * width * len(prompts))
        started = self._start_clock()
        conditions = self._encode(list(prompts), negative if sampling.guidance > 1 else None, residency)
        noise = self._noise(len(prompts), seed, height, width)
        velocity = self._velocity(conditions, sampling, noise)
        self.parts.transformer.counter.reset()
        latents = sampler.integrate(velocity, noise, sampling, on_step)
        calls = dict(self.parts.transformer.counter.calls)
        self.parts.transformer.counter.require(self.backend, velocity.forwards * len(self.parts.transformer.blocks()))
        pictures = self._decode(latents)
        return Drawing(pictures, latents.cpu(), self._report(started, len(prompts), calls, residency))

    # Steps -----------------------------------------------------------------------------------------------------------

    def _residency(self, pixels: int) -> offload.Residency:
        if self.device.type == "cpu":
            return offload.Residency(True, 0)
        return offload.plan(self.parts.sizes(), int(self.memory_budget * offload.GIB), pixels)

    def _encode(
        self, prompts: list[str], negative: str | None, residency: offload.Residency
    ) -> tuple[text.Encoded, text.Encoded | None]:
        parts = self.parts
        gemma_texts = [parts.system_prompt + prompt for prompt in prompts]
        clip_texts = list(prompts)
        if negative is not None:
            gemma_texts.append(negative)
            clip_texts.append(negative)
        with self._on_device(parts.text_encoder, residency.text_on_gpu):
            ids, mask = text.tokens(parts.tokenizer, gemma_texts, self.device)
            hidden = text.hidden_states(parts.text_encoder, ids, mask)
        with self._on_device(parts.text_encoder_2, residency.text_on_gpu):
            clip_ids, clip_mask = text.tokens(parts.tokenizer_2, clip_texts, self.device)
            pooled = parts.text_encoder_2(clip_ids, clip_mask)
        _require_finite("the text encoders' output", hidden[mask.bool()], pooled)
        encoded = text.Encoded(hidden, mask.bool(), pooled)
        if negative is None:
            return encoded, None
        count = len(prompts)
        positive = text.Encoded(hidden[:count], mask[:count].bool(), pooled[:count])
        return positive, encoded.row(count)

    @contextmanager
    def _on_device(self, module: torch.nn.Module, stay: bool) -> Iterator[None]:
        module.to(self.device)
        yield
        if not stay:
            module.to("cpu")
            torch.cuda.empty_cache()

    def _noise(self, count: int, seed: int, height: int, width: int) -> torch.Tensor:
        shape = (LATENT_CHANNELS, height // self._latent_side, width // self._latent_side)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed + n)) for n in range(count)]
        return torch.stack(noise).to(self.device)

    def _velocity(
        self, conditions: tuple[text.Encoded, text.Encoded | None], sampling: Sampling, noise: torch.Tensor
    ) -> Velocity:
        return Velocity(self.parts.transformer, conditions, sampling, noise, self.dtype)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        _require_finite("the transformer's latents", latents)
        vae = self.parts.vae
        latents = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        together = max(1, DECODED_PIXELS // (latents.shape[2] * latents.shape[3] * self._latent_side**2))
        pictures = [vae.decode(some.to(self.dtype)).sample.float() for some in latents.split(together)]
        _require_finite("the VAE's picture", *pictures)
        stacked = torch.cat(pictures).permute(0, 2, 3, 1)
        return ((stacked / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    def _start_clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        return time.perf_counter()

    def _report(self, started: float, pictures: int, calls: dict[str, int], residency: offload.Residency) -> Report:
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self.device)
        return Report(
            seconds=time.perf_counter() - started,
            pictures=pictures,
            attention=self.backend,
            attention_calls=calls,
            peak_bytes=torch.cuda.max_memory_allocated(self.device) if on_gpu else None,
            device=self.device_name,
            dtype=self.dtype_name,
            text_on_gpu=residency.text_on_gpu and on_gpu,
        )


def cast_weights(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Cast the weights alone: rotary frequencies are buffers, and in bf16 they would put far tokens in wrong places."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module


def _require_finite(what: str, *tensors: torch.Tensor) -> None:
    for tensor in tensors:
        broken = int((~torch.isfinite(tensor)).sum())
        if broken:
            raise PictureError(
                f"{what} holds {broken} of {tensor.numel()} numbers that are infinite or not a number: the weights are "
                f"damaged, or too large for {tensor.dtype}. Try --dtype fp32 to tell the two apart."
            )
