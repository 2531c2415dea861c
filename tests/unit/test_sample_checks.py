"""What the sample checks ask and how they judge; the drawing itself is in tests/runtime."""

from __future__ import annotations

import json
import math
from math import comb

import pytest
from checks_package import family

from assay.checks.expectations import SAMPLE
from assay.findings import Level
from assay.matrix.row import FlashAttn
from assay.paths import docker_dir

sample, cartoon, framework = family("sample"), family("cartoon"), family("framework")
SDPA = {"dtype": "fp32", "attention": "sdpa"}
FLASH = {"dtype": "bf16", "attention": "flash"}


def expect(
    level: str = "image",
    seed: int = 1,
    source: str = "auto",
    runtime: str = "newbie",
    head_dims: tuple[int, ...] = FlashAttn.head_dims,
    dtypes: tuple[str, ...] = FlashAttn.dtypes,
):
    flash_attn = {"source": source, "head_dims": list(head_dims), "dtypes": list(dtypes)}
    raw = {"level": level, "seed": seed, "flash_attn": flash_attn, "runtime": runtime}
    return framework.Expect({**raw, "sample": SAMPLE[Level(level)]})


def chance_of_at_least(wrong: int, attributes: int, rate: float) -> float:
    return sum(comb(attributes, n) * rate**n * (1 - rate) ** (attributes - n) for n in range(wrong, attributes + 1))


@pytest.mark.parametrize("level", [Level.IMAGE, Level.GPU])
def test_the_limit_passes_a_sound_model_and_fails_a_damaged_one(level):
    """Error rates are the measured ones that stand beside the limit in sample.py."""
    asked = sample.scenes(expect(level.value), "generate", SAMPLE[level]["prompts"])
    attributes = sum(len(scene.attributes()) for scene, _ in asked)
    forgiven = math.floor(attributes * (1 - sample.RIGHT_SHARE) + 1e-9)
    assert chance_of_at_least(forgiven + 1, attributes, 0.0035) < 1e-9
    assert 1 - chance_of_at_least(forgiven + 1, attributes, 1 - 0.72) < 1e-9
    assert 1 - chance_of_at_least(forgiven + 1, attributes, 1 - 0.25) < 1e-9


def test_soaks_are_longer_than_seven_pictures():
    assert SAMPLE[Level.IMAGE]["soak"] == 8
    assert SAMPLE[Level.GPU]["soak"] == 200


def test_prompts_come_from_the_runs_seed_and_were_never_trained_on():
    first = sample.scenes(expect(seed=1), "generate", 16)
    assert first == sample.scenes(expect(seed=1), "generate", 16)
    assert first != sample.scenes(expect(seed=2), "generate", 16)
    assert first != sample.scenes(expect(seed=1), "soak", 16)
    assert all(cartoon.held_out(scene) for scene, _ in first)
    assert [len(scene.characters) for scene, _ in first] == [2, 1] * 8
    for seed in range(30):
        (scene, prompt), *_ = sample.scenes(expect(seed=seed), "generate", 1)
        assert len(scene.characters) == 2
        assert prompt.startswith("<character_1>")


def test_the_level_decides_what_runs():
    assert sample.usual_run(expect("image")) == SDPA
    assert sample.usual_run(expect("gpu")) == FLASH
    assert sample.usual_run(expect("gpu", source="none")) == {"dtype": "bf16", "attention": "sdpa"}
    assert sample.draws(expect())
    assert not sample.draws(expect(runtime="none"))


@pytest.mark.parametrize("kernels", [{"head_dims": (96,)}, {"head_dims": (96, 128)}, {"dtypes": ("fp16",)}])
def test_a_row_without_the_kernels_of_the_sample_model_draws_without_flash_attn_and_says_so(monkeypatch, kernels):
    row = expect("gpu", **kernels)
    run = sample.usual_run(row)
    assert (run["dtype"], run["attention"]) == ("bf16", "sdpa")
    # The program that draws counts calls, and is held to SDPA alone: one call of flash-attn would be another run.
    assert sample.other_than(ran("bf16", "sdpa", 0, 224, 0), run) == ""
    assert "asked for SDPA" in sample.other_than(ran("bf16", "sdpa", 0, 224, 7), run)
    told = "the row asks for no flash-attn kernel for the sample model's head dim 64 in bf16"
    for drawing in ("draw", "start"):
        monkeypatch.setattr(sample, drawing, lambda expect, required, *_, **__: framework.not_run(required, ""))
    for question in (sample.generate, sample.parity, sample.soak):
        assert f"bf16 with SDPA ({told})" in question(row).required
    assert sample.usual_run(expect("image", **kernels)) == SDPA


def test_the_row_alone_decides_that_flash_attn_is_left_out():
    """A wheel from a base image or a wheelhouse that lacks what the row asks for is asked for it, and fails."""
    for source in ("auto", "wheelhouse", "release", "compile", "base"):
        assert sample.usual_run(expect("gpu", source=source, head_dims=(64,), dtypes=("bf16",))) == FLASH


def test_the_sample_models_head_dim_is_the_one_that_the_checks_know():
    config = json.loads((docker_dir() / "runtime/sample-model/transformer/config.json").read_text(encoding="utf-8"))
    assert config["hidden_size"] / config["num_attention_heads"] == sample.HEAD_DIM


def ran(dtype="bf16", attention="flash", flash=224, sdpa=0, seen=224):
    counted = {"flash": flash, "sdpa": sdpa}
    return {"dtype": dtype, "attention": attention, "attention_calls": counted, "flash_calls_seen": seen}


@pytest.mark.parametrize(
    ("run", "wanted", "fault"),
    [
        (ran(), FLASH, ""),
        (ran("fp32", "sdpa", 0, 224, 0), SDPA, ""),
        (ran("fp32"), FLASH, "asked for bf16, ran in fp32"),
        (ran(seen=0), FLASH, "flash-attn, which was called 0 times"),
        (ran(attention="sdpa", flash=0, sdpa=224, seen=0), FLASH, "called 0 times"),
        (ran(sdpa=1), FLASH, "the runtime counts {'flash': 224, 'sdpa': 1}"),
        (ran(seen=223), FLASH, "counts 224 calls of flash-attn, 223 reached it"),
        (ran("fp32", "sdpa", 0, 224, 7), SDPA, "asked for SDPA; flash-attn was called 7 times"),
        (ran("fp32", "sdpa", 0, 0, 0), SDPA, "asked for SDPA"),
    ],
)
def test_another_run_than_the_one_asked_for_is_a_fault(run, wanted, fault):
    found = sample.other_than(run, wanted)
    assert fault in found
    assert bool(found) == bool(fault)


def soaked(**changes):
    facts = {
        "digests": ["a", "b", "c", "d", "a"],
        "live_bytes": [100, 110, 110, 105, 110],
        "resident_bytes": [500_000_000, 510_000_000, 512_000_000, 511_000_000, 512_000_000],
        "layers": 400,
        "not_finite": [],
        "drift": [],
    }
    return {**facts, **changes}


def test_a_long_soak_forgives_what_is_loaded_in_its_first_half():
    """Kernels for another prompt length are loaded once and stay; a leak goes on."""
    loads = [5 * 10**8] * 20 + [9 * 10**8] * 41
    leaks = [5 * 10**8 + n * 3 * 10**6 for n in range(61)]
    digests = [str(n) for n in range(60)] + ["0"]
    long = {"digests": digests, "live_bytes": [1000] * 61}
    assert sample.soak_faults(soaked(**long, resident_bytes=loads), 60) == []
    (found,) = sample.soak_faults(soaked(**long, resident_bytes=leaks), 60)
    assert "after picture 31" in found


def test_a_sound_soak_has_no_fault():
    assert sample.soak_faults(soaked(), 4) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"layers": 0}, "no layer was seen at work"),
        ({"not_finite": ["picture 3: vae.decoder"]}, "1 layers gave inf or nan: picture 3: vae.decoder"),
        ({"drift": ["picture 2: x: ['torch.bfloat16'] -> ['torch.float32']"]}, "changed their dtype: picture 2"),
        ({"digests": ["a", "b", "b", "d", "a"]}, "only 3 of 4 pictures differ"),
        ({"digests": ["a", "b", "c", "d", "e"]}, "drawn again, gave another picture"),
        ({"live_bytes": [100, 110, 110, 111, 112]}, "tensors grew from 110 to 112 bytes"),
        ({"resident_bytes": [5 * 10**8, 5 * 10**8, 5 * 10**8, 6 * 10**8, 6 * 10**8]}, "from 500 to 600 MB"),
    ],
)
def test_each_fault_of_a_soak_is_told(changes, fault):
    (found,) = sample.soak_faults(soaked(**changes), 4)
    assert fault in found
