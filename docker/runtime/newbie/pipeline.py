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
    ) -> _Velocity:
        return _Velocity(self.parts.transformer, conditions, sampling, noise, self.dtype)

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


class _Velocity:
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


def _require_finite(what: str, *tensors: torch.Tensor) -> None:
    for tensor in tensors:
        broken = int((~torch.isfinite(tensor)).sum())
        if broken:
            raise PictureError(
                f"{what} holds {broken} of {tensor.numel()} numbers that are infinite or not a number: the weights are "
                f"damaged, or too large for {tensor.dtype}. Try --dtype fp32 to tell the two apart."
            )
