"""The two rules that judge attention, on the CPU, with a kernel simulated down to its roundings. Needs torch."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

FILE = Path(__file__).resolve().parents[2] / "docker/checks/attention_reference.py"
spec = importlib.util.spec_from_file_location("attention_reference", FILE)
reference = sys.modules["attention_reference"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

HEAD_DIM, SEED = 64, 3
# The longest case shortened and with fewer heads: the CPU's time, not the rules, limits it.
CASES = [replace(case, queries=(500,), keys=(500,), heads=6, kv_heads=2) if case.queries == (1500,) else case
         for case in reference.CASES]  # fmt: skip


class Kernel:
    """flash-attn's arithmetic: scores and sums in fp32, probabilities and output rounded to 16 bits; then a fault."""

    def __init__(self, fault=lambda out: out, *, align_first=False):
        self.fault, self.align_first = fault, align_first

    def one(self, q, k, v, causal):
        dtype = q.dtype
        q, k, v = (tensor.float().transpose(0, 1) for tensor in (q, k, v))
        k, v = (tensor.repeat_interleave(q.shape[0] // k.shape[0], 0) for tensor in (k, v))
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        if causal:
            queries, keys = scores.shape[-2:]
            shift = 0 if self.align_first else keys - queries
            ahead = torch.ones(queries, keys, dtype=torch.bool).triu(shift + 1)
            scores = scores.masked_fill(ahead, -math.inf)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        out = (weights.to(dtype).float() @ v) / weights.sum(-1, keepdim=True)
        return self.fault(out).to(dtype).transpose(0, 1)

    def flash_attn_func(self, q, k, v, causal=False):
        return torch.stack([self.one(*qkv, causal) for qkv in zip(q, k, v, strict=True)])

    def flash_attn_varlen_func(self, q, k, v, starts_q, starts_k, longest_q, longest_k, causal=False):
        lengths_q, lengths_k = starts_q.diff().tolist(), starts_k.diff().tolist()
        assert (max(lengths_q), max(lengths_k)) == (longest_q, longest_k)
        parts = zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k), strict=True)
        return torch.cat([self.one(*part, causal) for part in parts])


def measure(case, kernel, dtype=torch.bfloat16, **options):
    return reference.measure(case, HEAD_DIM, dtype, kernel, device="cpu", seed=SEED, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sound_kernel_passes_and_one_scaled_by_a_hundredth_does_not(case, dtype):
    (sound,) = measure(case, Kernel(), dtype)
    assert sound.ok, sound
    (scaled,) = measure(case, Kernel(lambda out: out * 1.01), dtype)
    assert not scaled.ok
    assert abs(scaled.slope - 1.01) < 0.002


def test_the_error_limit_alone_would_let_the_scaled_kernel_pass():
    (scaled,) = measure(CASES[0], Kernel(lambda out: out * 1.01))
    assert scaled.error <= scaled.limit


def test_roundings_scatter_the_slope_as_the_limit_assumes():
    case = reference.Case("one query", (1,), (2047,), heads=96, kv_heads=96)
    slopes = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        q, k, v = (torch.randn(n, 96, HEAD_DIM, generator=generator).bfloat16() for n in (1, 2047, 2047))
        out = Kernel().one(q, k, v, causal=False).double()
        exact = reference.attention(q, k, v, causal=False, dtype=torch.float32).double()
        slopes.append((out * exact).sum((0, 2)) / (exact * exact).sum((0, 2)))
    deviation = torch.cat(slopes).std().item() / (2**-8 / math.sqrt(HEAD_DIM * sum(case.queries)))
    assert 0.4 < deviation < 0.9, f"{deviation:.2f} u/sqrt(n); the limit is built on 0.65"


FAULTS = {
    "one head wrong": lambda out: torch.cat([out[:1].roll(1, 0) * 0.9, out[1:]]),
    "nan": lambda out: out.masked_fill(out == out.max(), math.nan),
    "zeros": lambda out: out * 0,
    "last query lost": lambda out: torch.cat([out[:, :-1], out[:, -1:] * 0], 1),
    "heads in another order": lambda out: out.flip(0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_other_faults_fail(name):
    (found,) = measure(CASES[2], Kernel(FAULTS[name]))
    assert not found.ok
    str(found)


def test_a_causal_mask_aligned_to_the_first_key_fails():
    case = next(case for case in CASES if case.causal and case.queries == (113,))
    assert measure(case, Kernel())[0].ok
    assert not measure(case, Kernel(align_first=True))[0].ok


def test_gradients_are_judged_too():
    case = next(case for case in CASES if case.causal and case.queries == (113,))
    assert [result.what.rpartition(", ")[2] for result in measure(case, Kernel(), backward=True)][1:] == [
        "dq",
        "dk",
        "dv",
    ]
    assert all(result.ok for result in measure(case, Kernel(), backward=True))

    class Flipped(torch.autograd.Function):
        @staticmethod
        def forward(context, tensor):
            return tensor.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * 1.5

    results = measure(case, Kernel(Flipped.apply), backward=True)
    assert [result.ok for result in results] == [True, False, False, False]
