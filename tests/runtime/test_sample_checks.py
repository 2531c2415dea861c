"""The sample checks on the real runtime and model, sound and damaged on purpose: each damage must show."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from assay_checks import framework, sample
from PIL import Image
from safetensors.torch import load_file, save_file

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def ask(runtime: Path, monkeypatch):
    """Return a function that asks one check about the runtime in `runtime`, as the runner in a container does."""
    monkeypatch.setattr(sample, "RUNTIME", str(runtime))

    def run(name: str, *, seed: int = 20261123, level: str = "image", soak: int = 4) -> framework.Answer:
        flash_attn = {"source": "auto", "head_dims": [64], "dtypes": ["bf16"]}
        raw = {"level": level, "seed": seed, "flash_attn": flash_attn, "sample": {"prompts": 6, "soak": soak}}
        return getattr(sample, name)(framework.Expect({**raw, "runtime": "newbie"}))

    return run


def edit(runtime: Path, name: str, change) -> None:
    path = runtime / "sample-model" / name
    state = load_file(path)
    change(state)
    save_file(state, path)


def patch(runtime: Path, code: str) -> None:
    """Damage the runtime's code: `draw` is the real one, and takes its place again after `code`."""
    with (runtime / "newbie/pipeline.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\nreal_draw = NewbiePipeline.draw\nstate = {{}}\n{code}\nNewbiePipeline.draw = draw\n")


# Sound ---------------------------------------------------------------------------------------------------------------


def test_the_sound_model_passes_all_three(ask):
    drawn = ask("generate")
    assert drawn.status == "passed", drawn
    assert drawn.data["attributes"] == 3 * 12 + 3 * 7
    assert drawn.data["attention_calls"]["sdpa"] > 0
    picture = Image.open(io.BytesIO(base64.b64decode(drawn.data["png"])))
    assert (picture.format, picture.size) == ("PNG", (128, 128))
    compared = ask("parity")
    assert compared.status == "passed", compared
    assert [run["dtype"] for run in compared.data["runs"]] == ["bf16", "fp32"]
    soaked = ask("soak", soak=8)
    assert soaked.status == "passed", soaked
    assert soaked.data["layers"] > 300
    assert len(soaked.data["seconds"]) == 9


# Damaged weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_a_layer_of_noughts_fails_generate(ask, runtime, layer):
    def zero(state):
        for name in state:
            if name.startswith(f"layers.{layer}."):
                state[name] = torch.zeros_like(state[name])

    edit(runtime, TRANSFORMER, zero)
    answer = ask("generate")
    assert answer.status == "failed", answer
    assert "attributes right" in answer.measured
    assert "asked for" in answer.evidence


def test_one_nan_fails_all_three(ask, runtime):
    edit(
        runtime, TRANSFORMER, lambda state: state["layers.3.feed_forward.linear_1.weight"][5].__setitem__(7, torch.nan)
    )
    for name in ("generate", "parity", "soak"):
        answer = ask(name)
        assert answer.status == "failed", answer
        assert "PictureError: the transformer's latents holds" in answer.evidence


def test_weights_that_overflowed_in_fp16_fail_all_three(ask, runtime):
    """As a conversion does that scales first and casts to fp16 afterwards."""

    def overflow(state):
        for name in state:
            if name.startswith("layers.1.feed_forward."):
                state[name] = (state[name].float() * 1e6).to(torch.float16)

    edit(runtime, TRANSFORMER, overflow)
    for name in ("generate", "parity", "soak"):
        answer = ask(name)
        assert answer.status == "failed", answer
        assert "PictureError" in answer.evidence


def test_numbers_that_only_fp32_can_hold_fail_parity_alone(ask, runtime):
    """A large constant that the next norm takes away again: fp32 keeps small differences beside it, bf16 does not."""
    edit(runtime, VAE, lambda state: state["decoder.up_blocks.3.resnets.0.conv1.bias"].add_(1000.0))
    drawn = ask("generate")
    assert drawn.status == "passed", drawn
    answer = ask("parity")
    assert answer.status == "failed", answer
    assert max(answer.data["psnr_db"]) < sample.PSNR_LIMIT


# Damaged runtimes ----------------------------------------------------------------------------------------------------

STORED = """
def draw(self, prompts, **options):
    drawn = real_draw(self, prompts, **options)
    torch.manual_seed(1)
    pictures = torch.randint(0, 256, drawn.pictures.shape, dtype=torch.uint8)
    return Drawing(pictures, torch.zeros_like(drawn.latents), drawn.report)
"""
DRIFT = """
def draw(self, prompts, **options):
    state["pictures"] = state.get("pictures", 0) + 1
    if state["pictures"] == 3:
        self.parts.vae.to(torch.float64)
        self.parts.vae.decoder.register_forward_pre_hook(lambda module, given: tuple(part.double() for part in given))
    return real_draw(self, prompts, **options)
"""
LEAK = """
def draw(self, prompts, **options):
    drawn = real_draw(self, prompts, **options)
    state.setdefault("kept", []).append(drawn.latents)
    return drawn
"""
RESTLESS = """
def draw(self, prompts, *, seed, **options):
    return real_draw(self, prompts, seed=time.monotonic_ns() % 2**31, **options)
"""
MISCOUNT = """
def draw(self, prompts, **options):
    drawn = real_draw(self, prompts, **options)
    drawn.report.attention_calls.update(flash=drawn.report.attention_calls.pop("sdpa"), sdpa=0)
    return drawn
"""


def test_a_stored_picture_fails_all_three(ask, runtime):
    patch(runtime, STORED)
    drawn = ask("generate")
    assert drawn.status == "failed", drawn
    compared = ask("parity")
    assert "the same to the last bit: nothing was computed" in compared.measured
    soaked = ask("soak")
    assert "only 1 of 4 pictures differ: something does not draw" in soaked.measured


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (DRIFT, r"layers changed their dtype: picture 3"),
        (LEAK, "tensors grew from"),
        (RESTLESS, "the first prompt and seed, drawn again, gave another picture"),
    ],
)
def test_each_way_to_go_wrong_over_time_fails_the_soak(ask, runtime, code, fault):
    patch(runtime, code)
    answer = ask("soak")
    assert answer.status == "failed", answer
    assert fault in answer.evidence
    assert "Traceback" not in answer.evidence


def test_a_report_of_kernels_that_did_not_run_fails(ask, runtime):
    patch(runtime, MISCOUNT)
    answer = ask("generate")
    assert answer.status == "failed", answer
    assert "asked for SDPA; flash-attn was called 0 times, the runtime counts" in answer.measured


# What is not the image's picture -------------------------------------------------------------------------------------


def test_an_image_without_runtime_or_model_fails(ask, runtime):
    (runtime / "sample-model/model_index.json").unlink()
    assert "sample-model/model_index.json is missing" in ask("generate").measured
    (runtime / "newbie").rename(runtime / "elsewhere")
    answer = ask("soak")
    assert answer.status == "failed"
    assert "No module named 'newbie" in answer.measured


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("name", ["generate", "parity", "soak"])
def test_at_level_gpu_without_a_gpu_nothing_is_answered(ask, name):
    answer = ask(name, level="gpu")
    assert (answer.status, answer.measured) == ("not-run", "torch sees no GPU: see gpu.visible")


def test_psnr_is_the_usual_one():
    black = np.zeros((4, 4, 3), np.uint8)
    assert sample.psnr(black, black + np.uint8(255)) == pytest.approx(0.0)
    assert sample.psnr(black, black + np.uint8(1)) == pytest.approx(48.13, abs=0.01)
    assert sample.psnr(black, black) == float("inf")
