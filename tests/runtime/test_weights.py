"""Loading: what a model folder holds, and the one message when a file is missing or wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from newbie import weights
from newbie.errors import WeightsError
from safetensors.torch import load_file, save_file

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
GEMMA = "text_encoder/model.safetensors"


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "weights"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(path: Path, change) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_loads_every_part_in_the_dtype_that_was_asked_for(model):
    parts = weights.load(model, "fp16")
    for name, module in parts.modules().items():
        assert {weight.dtype for weight in module.parameters()} == {torch.float16}, name
    index = json.loads((model / "model_index.json").read_text())
    assert parts.sampling.to_json() == index["newbie"]["sampling"]


def test_the_model_is_small_and_its_weights_are_finite(model):
    files = list(model.rglob("*.safetensors"))
    assert len(files) == 4
    assert sum(file.stat().st_size for file in files) <= 16e6
    for file in files:
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "transformer/config.json",
        TRANSFORMER,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        GEMMA,
        "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer_2/tokenizer.json",
    ],
)
def test_a_file_that_is_missing_or_cut_is_named(folder, name):
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=str(path)):
        weights.load(folder)
    path.unlink()
    with pytest.raises(WeightsError, match=f"{path} is missing"):
        weights.load(folder)


def test_no_folder_is_said_plainly(tmp_path):
    with pytest.raises(WeightsError, match="is no folder"):
        weights.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (TRANSFORMER, lambda state: state.pop("layers.0.attn.to_q.weight"), "lacks tensor layers.0.attn.to_q.weight"),
        (TRANSFORMER, lambda state: state.update({"extra.weight": torch.ones(3)}), "unknown tensor extra.weight"),
        (
            TRANSFORMER,
            lambda state: state.update({"layers.0.attn.to_q.weight": torch.ones(2, 2)}),
            r"layers.0.attn.to_q.weight is \(2, 2\), config.json asks for \(256, 256\)",
        ),
        (GEMMA, lambda state: [state.pop(name) for name in list(state)[:5]], r"lacks tensor .* \(and 4 more faults\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(folder, name, change, message):
    edit_tensors(folder / name, change)
    with pytest.raises(WeightsError, match=message):
        weights.load(folder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "transformer/config.json",
            {"hiden_size": 4},
            "no model can be made from it: TypeError",
        ),
        ("transformer/config.json", {"cap_feat_dim": 64}, "config.json asks for"),
        ("vae/config.json", {"latent_channels": 4}, "latent_channels is not 16"),
        ("model_index.json", {"newbie": {"sampling": {"steps": 0}}}, "newbie.sampling: steps 0 must be 1 to 1000"),
        ("model_index.json", {"newbie": {"sampling": {"speed": 1}}}, "newbie.sampling: .*speed"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(folder, name, changes, message):
    edit_json(folder / name, **changes)
    with pytest.raises(WeightsError, match=message):
        weights.load(folder)


def test_shards_are_gathered_and_stay_in_their_folder(folder):
    whole = load_file(folder / GEMMA)
    names = sorted(whole)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: whole[name] for name in part}, folder / "text_encoder" / file)
    (folder / GEMMA).unlink()
    index = folder / "text_encoder/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in halves.items() for name in part}}))
    loaded = weights.load(folder, "bf16").text_encoder.state_dict()
    assert all(torch.equal(loaded[name], whole[name]) for name in names)
    (folder / "text_encoder/model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-2\.safetensors is missing"):
        weights.load(folder)
    index.write_text(json.dumps({"weight_map": {"embed_tokens.weight": "../vae/diffusion_pytorch_model.safetensors"}}))
    with pytest.raises(WeightsError, match="not a file of its own folder"):
        weights.load(folder)


def test_checkpoints_of_larger_models_and_other_names_are_understood(folder):
    """Gemma with a vision tower keeps the text below a prefix; conversions name the pooled branch as they like."""

    def as_multimodal(state):
        inner = {f"language_model.model.{name}": state.pop(name) for name in list(state)}
        state.update({**inner, "vision_tower.weight": torch.ones(4)})

    def renamed(state):
        for name in list(state):
            if name.startswith(("clip_text_pooled_proj.", "time_text_embed.")):
                state[f"pooled_text.{name.replace('.', '_', 1)}"] = state.pop(name)

    before = weights.load(folder, "bf16")
    edit_tensors(folder / GEMMA, as_multimodal)
    edit_tensors(folder / TRANSFORMER, renamed)
    after = weights.load(folder, "bf16")
    for name, module in before.modules().items():
        other = after.modules()[name].state_dict()
        assert all(torch.equal(tensor, other[key]) for key, tensor in module.state_dict().items()), name


def test_parts_of_different_models_are_refused(folder):
    edit_json(folder / "text_encoder_2/config.json", hidden_size=48)
    edit_tensors(folder / "text_encoder_2/model.safetensors", lambda state: None)
    with pytest.raises(WeightsError, match="text_encoder_2"):
        weights.load(folder)
