"""Load the model from a folder in the diffusers layout. Nothing is fetched; the first file that is wrong is named.

model_index.json                            optional "newbie" table: {"sampling": {...}, "system_prompt": "..."}
transformer/, vae/                          config.json, diffusion_pytorch_model.safetensors or its shards
text_encoder/                               Gemma-3 (text part): config.json, model.safetensors or its shards
text_encoder_2/                             Jina CLIP's text tower, the same files
tokenizer/, tokenizer_2/                    what transformers' AutoTokenizer reads
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import NewbieError, WeightsError
from .jina_clip import JinaClipTextConfig, JinaClipTextModel
from .pipeline import DTYPES, LATENT_CHANNELS, SYSTEM_PROMPT, Parts
from .sampler import Sampling
from .transformer import NewbieTransformer2DModel

State = dict[str, torch.Tensor]
DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEM = "model"


def load(folder: Path, dtype: str = "bf16") -> Parts:
    """Load all parts, on the CPU. Raises WeightsError with the name of the file that is missing or wrong."""
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder: --weights takes a model folder in the diffusers layout")
    index = read_json(folder / "model_index.json")
    own = index.get("newbie", {})
    try:
        sampling = Sampling(**own.get("sampling", {}))
    except (TypeError, NewbieError) as error:
        raise WeightsError(f"{folder / 'model_index.json'}: newbie.sampling: {error}") from error
    target = DTYPES[dtype]
    parts = Parts(
        tokenizer=_tokenizer(folder / "tokenizer"),
        text_encoder=_gemma(folder / "text_encoder", target),
        tokenizer_2=_tokenizer(folder / "tokenizer_2"),
        text_encoder_2=_jina(folder / "text_encoder_2", target),
        transformer=_transformer(folder / "transformer", target),
        vae=_vae(folder / "vae", target),
        sampling=sampling,
        system_prompt=own.get("system_prompt", SYSTEM_PROMPT),
    )
    _require_same_widths(parts, folder)
    return parts


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises WeightsError naming the file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(raw, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return raw


def read_state(folder: Path, stem: str, dtype: torch.dtype) -> State:
    """Read `stem.safetensors`, or the shards that `stem.safetensors.index.json` names, cast to a dtype."""
    whole = folder / f"{stem}.safetensors"
    index = folder / f"{stem}.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return _read_file(whole, dtype)
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    if not shards:
        raise WeightsError(f"{index} names no shards in its weight_map")
    state: State = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise WeightsError(f"{index} names {shard!r}, which is not a file of its own folder")
        state.update(_read_file(folder / shard, dtype))
    return state


def _read_file(path: Path, dtype: torch.dtype) -> State:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path} is missing")
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def fill(module: nn.Module, state: State, source: Path) -> nn.Module:
    """Put a state into a module, taking its tensors over. Raises WeightsError for missing, extra or misshapen ones."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = [f"lacks tensor {name} {shape}" for name, shape in expected.items() if name not in state]
    problems += [
        f"tensor {name} is {tuple(state[name].shape)}, config.json asks for {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    problems += [f"has an unknown tensor {name}" for name in state if name not in expected]
    if problems:
        more = f" (and {len(problems) - 1} more faults)" if len(problems) > 1 else ""
        raise WeightsError(f"{source}: {problems[0]}{more}")
    module.load_state_dict(state, assign=True)
    return module


@contextmanager
def without_initialisation() -> Iterator[None]:
    """Build modules without drawing random weights, which would take minutes for the full-size model."""
    from transformers.modeling_utils import no_init_weights

    classes = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd, nn.LayerNorm, nn.GroupNorm)
    kept = [vars(kind)["reset_parameters"] for kind in classes]
    for kind in classes:
        kind.reset_parameters = lambda self: None  # type: ignore[method-assign]
    try:
        with no_init_weights():
            yield
    finally:
        for kind, reset in zip(classes, kept):  # noqa: B905 - Python 3.9
            kind.reset_parameters = reset  # type: ignore[method-assign]


def _build(path: Path, make: Callable[[dict[str, Any]], nn.Module]) -> nn.Module:
    config = read_json(path)
    try:
        with without_initialisation():
            return make(config)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path}: no model can be made from it: {type(error).__name__}: {error}") from error


def _own(config: dict[str, Any]) -> dict[str, Any]:
    """Drop what diffusers notes about itself."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _transformer(folder: Path, dtype: torch.dtype) -> NewbieTransformer2DModel:
    module = _build(folder / "config.json", lambda config: NewbieTransformer2DModel(**_own(config)))
    state = read_state(folder, DIFFUSERS_STEM, dtype)
    fill(module, rename_pooled_branch(module, state), folder)
    return module  # type: ignore[return-value]


def rename_pooled_branch(module: nn.Module, state: State) -> State:
    """Give the pooled-text branch this project's names.

    No release of diffusers has that branch, so conversions name it as they like. Its three layers differ in shape from
    each other and from all other left-over tensors: each weight is found by its shape, each bias by its weight.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    renamed = dict(state)
    for name in (name for name in missing if name.endswith(".weight")):
        fits = [other for other in unknown if other.endswith(".weight") and state[other].shape == expected[name].shape]
        if len(fits) == 1:
            for kind in ("weight", "bias"):
                old, new = re.sub(r"weight$", kind, fits[0]), re.sub(r"weight$", kind, name)
                if old in renamed and new in missing:
                    renamed[new] = renamed.pop(old)
    return renamed


def _vae(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKL

    module = _build(folder / "config.json", lambda config: AutoencoderKL(**_own(config)))
    if module.config.latent_channels != LATENT_CHANNELS:
        raise WeightsError(f"{folder / 'config.json'}: latent_channels is not {LATENT_CHANNELS}")
    return fill(module, read_state(folder, DIFFUSERS_STEM, dtype), folder)


def _gemma(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import Gemma3TextConfig, Gemma3TextModel

    def make(config: dict[str, Any]) -> nn.Module:
        text = Gemma3TextConfig(**config.get("text_config", config))
        text._attn_implementation = "sdpa"
        return Gemma3TextModel(text)

    module = _build(folder / "config.json", make)
    state = below_prefix(read_state(folder, TRANSFORMERS_STEM, dtype), "embed_tokens.weight")
    return fill(module, state, folder)


def _jina(folder: Path, dtype: torch.dtype) -> JinaClipTextModel:
    module = _build(folder / "config.json", lambda config: JinaClipTextModel(JinaClipTextConfig.from_json(config)))
    # Jina's task adapters (LoRA) are not part of the text features that NewBie was trained with.
    plain = {
        name.replace("parametrizations.weight.original", "weight"): tensor
        for name, tensor in read_state(folder, TRANSFORMERS_STEM, dtype).items()
        if ".lora_" not in name
    }
    fill(module, below_prefix(plain, "embeddings.word_embeddings.weight"), folder)
    return module  # type: ignore[return-value]


def below_prefix(state: State, anchor: str) -> State:
    """Return the tensors that share the prefix of the one whose name ends in `anchor`, without that prefix.

    A checkpoint of a larger model (Gemma-3 with its vision tower) keeps the text model below a prefix of its own.
    """
    for name in state:
        if name == anchor or name.endswith(f".{anchor}"):
            prefix = name[: -len(anchor)]
            return {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
    return state


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    for name in ("tokenizer_config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder / name} is missing")
        read_json(folder / name)
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise WeightsError(f"{folder / 'tokenizer.json'}: no tokenizer can be made from it: {error}") from error


def _require_same_widths(parts: Parts, folder: Path) -> None:
    """Raise WeightsError where the parts come from different models."""
    config = parts.transformer.config
    pairs: list[Any] = [
        ("cap_feat_dim", config.cap_feat_dim, "text_encoder", parts.text_encoder.config.hidden_size),
        (
            "pooled_projection_dim",
            config.pooled_projection_dim,
            "text_encoder_2",
            parts.text_encoder_2.config.hidden_size,
        ),
        ("in_channels", config.in_channels, "vae", parts.vae.config.latent_channels),
    ]
    for name, width, part, other in pairs:
        if width != other:
            raise WeightsError(
                f"{folder / 'transformer' / 'config.json'}: {name} is {width}, "
                f"but {folder / part / 'config.json'} makes {other}"
            )


def parameter_count(parts: Parts) -> dict[str, int]:
    """Return the number of weights of each part."""
    return {name: sum(tensor.numel() for tensor in module.parameters()) for name, module in parts.modules().items()}


def default_folder() -> Path | None:
    """Return the sample model's folder beside the runtime, or None where the image carries none."""
    folder = Path(__file__).resolve().parents[1] / "sample-model"
    return folder if (folder / "model_index.json").is_file() else None
