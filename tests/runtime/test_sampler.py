"""Sampling, guidance, memory budget and random weights: arithmetic that needs no model."""

from __future__ import annotations

import math

import pytest
import torch
from newbie import offload, random_weights, sampler
from newbie.errors import MemoryBudgetError, NewbieError
from newbie.sampler import Sampling


def test_times_run_from_noise_to_picture_and_a_shift_crowds_them_at_the_noise():
    assert sampler.times(4, 1.0) == [0, 0.25, 0.5, 0.75, 1]
    shifted = sampler.times(4, 6.0)
    assert shifted[0] == 0
    assert shifted[-1] == 1
    # SD3's shift, written for a time that runs from picture to noise: s u / (1 + (s - 1) u).
    theirs = [1 - 6 * u / (1 + 5 * u) for u in (1, 0.75, 0.5, 0.25, 0)]
    assert shifted == pytest.approx(theirs)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_solvers_converge_with_their_order(solver, order):
    """On dx/dt = -2x the exact end is x e^-2; twice the steps divide the error by 2 to the order."""
    noise = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    errors = []
    for steps in (20, 40):
        settings = Sampling(steps=steps, solver=solver, shift=1.0)
        calls: list[tuple[int, int]] = []
        end = sampler.integrate(lambda x, t: -2 * x, noise, settings, lambda *step, kept=calls: kept.append(step))
        assert calls == [(n, steps) for n in range(1, steps + 1)]
        errors.append(abs(end.item() - math.exp(-2)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_guidance_is_a_line_through_both_velocities_and_renorm_limits_its_length():
    plain, blank = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    guided = sampler.guide(plain, blank, Sampling(guidance=4.0))
    torch.testing.assert_close(guided, blank + 4 * (plain - blank))
    limited = sampler.guide(plain, blank, Sampling(guidance=4.0, renorm=1.0))
    length = limited.flatten(1).norm(dim=1)
    assert (length <= plain.flatten(1).norm(dim=1) * 1.0001).all()
    torch.testing.assert_close(sampler.guide(plain, blank, Sampling(guidance=1.0)), plain)


def test_truncation_ends_guidance():
    settings = Sampling(guidance=4.0, guidance_until=0.5)
    assert settings.guided(0.49)
    assert not settings.guided(0.5)
    assert not Sampling(guidance=1.0).guided(0.0)


def test_all_bad_settings_are_named_at_once():
    with pytest.raises(NewbieError, match=r"steps 0 must be 1 to 1000; solver 'heun' must be.*; guidance 0.5 must be"):
        Sampling(steps=0, solver="heun", guidance=0.5)


FULL = {"text_encoder": 7.2, "text_encoder_2": 1.1, "transformer": 6.5, "vae": 0.16}
SIZES = {name: int(gib * offload.GIB) for name, gib in FULL.items()}


def test_text_encoders_leave_the_gpu_when_the_budget_asks_for_it():
    pixels = 1024 * 1024
    assert offload.plan(SIZES, 24 * offload.GIB, pixels).text_on_gpu
    apart = offload.plan(SIZES, 16 * offload.GIB, pixels)
    assert not apart.text_on_gpu
    assert apart.peak_bytes < 10 * offload.GIB
    with pytest.raises(MemoryBudgetError, match=r"9\.2 GiB are needed.*transformer 6\.5.*the budget is 8\.0"):
        offload.plan(SIZES, 8 * offload.GIB, pixels)


def test_random_weights_are_the_same_for_a_seed_and_keep_numbers_at_their_size():
    module = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(20)], torch.nn.LayerNorm(256))
    random_weights.fill_randomly(module, torch.Generator().manual_seed(3))
    first = [weight.clone() for weight in module.parameters()]
    random_weights.fill_randomly(module, torch.Generator().manual_seed(3))
    assert all(torch.equal(one, other) for one, other in zip(first, module.parameters(), strict=True))
    assert 0.5 < module[:20](torch.randn(64, 256)).std() < 2
    assert (module[20].weight == 1).all()
    assert (module[20].bias == 0).all()


@pytest.mark.parametrize(
    ("part", "weights"),
    [
        # Gemma-3-4B in all, less its vision tower and what joins the two.
        (random_weights._gemma, 4_300_079_472 - 416_866_032 - (1152 * 2560 + 1152)),
        (random_weights._vae, 83_819_683),
    ],
)
def test_the_parts_have_their_published_sizes(part, weights):
    module = random_weights._empty(part, torch.device("meta"), torch.bfloat16)
    assert sum(weight.numel() for weight in module.parameters()) == weights
    assert {weight.dtype for weight in module.parameters()} == {torch.bfloat16}


def test_an_unknown_random_model_is_refused():
    with pytest.raises(NewbieError, match="there is newbie-3b"):
        random_weights.build("newbie-70b", "cpu", "bf16")


def test_the_byte_tokenizer_pads_and_cuts():
    batch = random_weights.ByteTokenizer()(["ab", "é"], truncation=True, max_length=3)
    assert batch["input_ids"].tolist() == [[1, 99, 100], [1, 0xC3 + 2, 0xA9 + 2]]
    longer = random_weights.ByteTokenizer()(["a", ""])
    assert longer["input_ids"].tolist() == [[1, 99], [1, 0]]
    assert longer["attention_mask"].tolist() == [[1, 1], [1, 0]]
