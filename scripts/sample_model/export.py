"""Write the trained networks as a model folder that `newbie.weights` loads, and as one file to carry."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from newbie.sampler import Sampling
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

from .networks import GEMMA, JINA, TRANSFORMER, Networks
from .tokenizer import save as save_tokenizer

SAMPLING = Sampling(steps=12, solver="midpoint", shift=1.5, guidance=2.5)
"""What the pipeline uses until the evaluation has chosen better settings."""


def export(folder: Path, vae: AutoencoderKL, networks: Networks, tokenizer: Tokenizer, sampling: Sampling) -> None:
    """Write the folder; weights are stored in bf16."""
    write_index(folder, sampling)
    parts: list[tuple[str, str, nn.Module, dict[str, Any]]] = [
        (
            "transformer",
            "diffusion_pytorch_model",
            networks.transformer,
            {"_class_name": "NewbieTransformer2DModel", **TRANSFORMER},
        ),
        ("vae", "diffusion_pytorch_model", vae, _vae_config(vae)),
        ("text_encoder", "model", networks.gemma, {"model_type": "gemma3_text", **GEMMA}),
        ("text_encoder_2", "model", networks.jina, JINA.to_json()),
    ]
    for name, stem, module, config in parts:
        part = folder / name
        part.mkdir(parents=True, exist_ok=True)
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        state = {
            key: tensor.detach().to("cpu", torch.bfloat16).contiguous() for key, tensor in module.state_dict().items()
        }
        file = part / f"{stem}.safetensors"
        save_file(state, str(file), metadata={"format": "pt"})
        file.chmod(0o644)
    for name in ("tokenizer", "tokenizer_2"):
        save_tokenizer(tokenizer, folder / name)
    (folder / "scheduler").mkdir(exist_ok=True)
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": sampling.shift}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2) + "\n")


def restore(folder: Path, vae: AutoencoderKL, networks: Networks) -> None:
    """Read weights that `export` wrote. Raises RuntimeError when they are of other networks."""
    for name, stem, module in (
        ("transformer", "diffusion_pytorch_model", networks.transformer),
        ("vae", "diffusion_pytorch_model", vae),
        ("text_encoder", "model", networks.gemma),
        ("text_encoder_2", "model", networks.jina),
    ):
        module.load_state_dict(load_file(str(folder / name / f"{stem}.safetensors")))


def write_index(folder: Path, sampling: Sampling) -> None:
    """Write `model_index.json` with the sampling that suits the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        "_class_name": "NewbiePipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Gemma3TextModel"],
        "text_encoder_2": ["newbie", "JinaClipTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["newbie", "NewbieTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "newbie": {"sampling": sampling.to_json(), "system_prompt": ""},
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def pack(folder: Path, archive: Path) -> None:
    """Put the folder into one tar file; an interrupted call leaves the previous file whole."""
    unfinished = archive.with_suffix(".part")
    with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, arcname=f"{folder.name}/{path.relative_to(folder)}")
    unfinished.replace(archive)


def _vae_config(vae: AutoencoderKL) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        **{name: value for name, value in vae.config.items() if not name.startswith("_")},
    }
