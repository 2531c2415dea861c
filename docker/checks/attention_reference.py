"""What attention must come out as, and how far a kernel may be from it. Runs on any device, so that it can be tested.

Two rules, since each is blind to what the other sees:

- The rule of flash-attn's own tests: the largest error against an fp32 reference is at most 2 times (gradients: 3
  times) that of PyTorch's plain computation in the same 16-bit type, plus a small constant. It finds wrong values. It
  cannot be relied on to find an output that is 1 % too large: over many keys the outputs are small, and 1 % of them is
  less than the rounding error of PyTorch's computation.
- The slope: the least-squares factor between output and reference, sum(out*ref) / sum(ref*ref), per head. Rounding to
  nearest has no direction, so its errors cancel in that sum. With u the type's unit roundoff (2^-8 for bf16, 2^-11 for
  fp16) and n outputs in a head, the kernel's roundings scatter the slope by 0.65 u/sqrt(n) (standard deviation, from a
  simulation of them; `tests/unit/test_gpu_checks_attention.py` repeats it). The limit, u/2 + 4u/sqrt(n), is six of
  those beyond a bias of u/2. A factor of 1.01 in bf16 is 2.6 u: in that simulation the first rule saw it in 7 of the
  12 cases below, the slope in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Limits of the first rule. The constant covers outputs that PyTorch gets exactly right, such as a single key.
FORWARD_FACTOR, BACKWARD_FACTOR, CONSTANT = 2.0, 3.0, 1e-5


@dataclass(frozen=True)
class Case:
    """One call: how many queries and keys each sequence of the batch has, and how heads are shared.

    packed: through `flash_attn_varlen_func` with cu_seqlens, else `flash_attn_func`.
    """

    name: str
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    heads: int = 24
    kv_heads: int = 8
    causal: bool = False
    packed: bool = False


# 24 query heads on 8 key heads is NewBie's attention; lengths that no tile size divides show mistakes at the edges;
# one query against many keys is what makes the dense call choose split-KV kernels.
CASES = tuple(
    Case(f"{name}{', causal' if causal else ''}", queries, keys, heads, kv_heads, causal, packed)
    for causal in (False, True)
    for name, queries, keys, heads, kv_heads, packed in (
        ("dense 1500, GQA 24/8", (1500,), (1500,), 24, 8, False),
        ("dense 2 x 512, 6 heads", (512, 512), (512, 512), 6, 6, False),
        ("dense 113 queries, 203 keys, GQA 24/8", (113,), (203,), 24, 8, False),
        ("dense 1 query, 2047 keys, GQA 24/8", (1,), (2047,), 24, 8, False),
        ("varlen 1+127+128+129+797, GQA 24/8", (1, 127, 128, 129, 797), (1, 127, 128, 129, 797), 24, 8, True),
        ("varlen 65+1+300 on 301+33+300, GQA 24/8", (65, 1, 300), (301, 33, 300), 24, 8, True),
    )
)


@dataclass(frozen=True)
class Accuracy:
    """How far one tensor is from its reference.

    error, baseline: largest absolute error of the kernel and of PyTorch's 16-bit computation. limit: what the first
    rule allows. slope: of the head that is farthest from 1. slope_limit: how far it may be. finite: no inf or nan.
    """

    what: str
    error: float
    baseline: float
    limit: float
    slope: float
    slope_limit: float
    finite: bool = True

    @property
    def ok(self) -> bool:
        """Whether both rules hold."""
        return self.finite and self.error <= self.limit and abs(self.slope - 1) <= self.slope_limit

    def __str__(self) -> str:
        if not self.finite:
            return f"{self.what}: inf or nan in the output"
        error = f"{self.what}: error {self.error:.2g} (limit {self.limit:.2g}, PyTorch {self.baseline:.2g})"
        if math.isinf(self.slope_limit):  # gradients have no such limit
            return error
        return f"{error}, scale {self.slope:.5f} (limit 1 +- {self.slope_limit:.2g})"


def attention(q: Any, k: Any, v: Any, *, causal: bool, dtype: Any) -> Any:
    """Return attention of one sequence, computed plainly with every intermediate in `dtype`.

    q: (queries, heads, dim); k, v: (keys, kv_heads, dim); each kv head serves heads / kv_heads query heads in a row.
    causal: query i sees the keys up to i + keys - queries, as flash-attn aligns it.
    """
    import torch

    q, k, v = (tensor.to(dtype).transpose(0, 1) for tensor in (q, k, v))
    k, v = (tensor.repeat_interleave(q.shape[0] // k.shape[0], dim=0) for tensor in (k, v))
    scores = q @ (k / math.sqrt(q.shape[-1])).transpose(1, 2)
    if causal:
        queries, keys = scores.shape[-2:]
        ahead = torch.ones(queries, keys, dtype=torch.bool, device=q.device).triu(keys - queries + 1)
        scores = scores.masked_fill(ahead, float("-inf"))
    return (torch.softmax(scores, dim=-1) @ v).transpose(0, 1)


def judge(what: str, out: Any, plain: Any, exact: Any, *, gradient: bool = False) -> Accuracy:
    """Hold a 16-bit result against the fp32 one. All three: (tokens, heads, dim); `plain` is PyTorch's in 16 bits."""
    import torch

    out_, plain_, exact_ = (tensor.double() for tensor in (out, plain, exact))
    baseline = (plain_ - exact_).abs().max().item()
    slopes = (out_ * exact_).sum((0, 2)) / (exact_ * exact_).sum((0, 2)).clamp_min(1e-300)
    worst = slopes[(slopes - 1).abs().argmax()].item()
    return Accuracy(
        what,
        error=(out_ - exact_).abs().max().item(),
        baseline=baseline,
        limit=(BACKWARD_FACTOR if gradient else FORWARD_FACTOR) * baseline + CONSTANT,
        slope=worst,
        slope_limit=math.inf if gradient else slope_limit(torch.finfo(out.dtype).eps / 2, out.shape[0] * out.shape[2]),
        finite=bool(torch.isfinite(out).all()),
    )


def slope_limit(roundoff: float, outputs: int) -> float:
    """Return how far from 1 a head's slope may be, for a type's unit roundoff and the number of outputs in a head."""
    return roundoff * (0.5 + 4 / math.sqrt(outputs))


def measure(
    case: Case, head_dim: int, dtype: Any, flash: Any, *, device: str, seed: int, backward: bool = False
) -> list[Accuracy]:
    """Run one case through `flash`, a module with flash-attn's two functions, and judge what comes out.

    backward: judge the gradients too, by the first rule only: they have no simple bound for a bias.
    Raises what the kernel raises: RuntimeError where the build refuses, or where the GPU cannot run its code.
    """
    import torch

    generator = torch.Generator(device=device).manual_seed(seed)

    def random(tokens: int, heads: int) -> Any:
        return torch.randn(tokens, heads, head_dim, device=device, generator=generator).to(dtype)

    q = random(sum(case.queries), case.heads)
    k, v = (random(sum(case.keys), case.kv_heads) for _ in range(2))
    gradient = random(sum(case.queries), case.heads)
    names = [case.name] + ([f"{case.name}, d{x}" for x in "qkv"] if backward else [])
    found = _with_gradients(lambda *qkv: run(case, *qkv, flash), q, k, v, gradient, backward)

    def reference(kind: Any) -> tuple[Any, ...]:
        inputs = (tensor.to(kind) for tensor in (q, k, v))
        return _with_gradients(lambda *qkv: _reference(case, *qkv, kind), *inputs, gradient, backward)

    return [
        judge(name, out, plain, exact, gradient=index > 0)
        for index, (name, out, plain, exact) in enumerate(
            zip(names, found, reference(dtype), reference(torch.float32))  # noqa: B905  (strict= needs Python 3.10)
        )
    ]


def run(case: Case, q: Any, k: Any, v: Any, flash: Any) -> Any:
    """Call flash-attn as the case says; tensors and result are packed as (tokens, heads, dim)."""
    if case.packed:
        starts = [_starts(lengths, q.device) for lengths in (case.queries, case.keys)]
        return flash.flash_attn_varlen_func(q, k, v, *starts, max(case.queries), max(case.keys), causal=case.causal)
    batch = len(case.queries)
    q, k, v = (tensor.unflatten(0, (batch, -1)) for tensor in (q, k, v))
    return flash.flash_attn_func(q, k, v, causal=case.causal).flatten(0, 1)


def _starts(lengths: tuple[int, ...], device: Any) -> Any:
    """Return cu_seqlens: 0, then where each next sequence starts."""
    import torch

    return torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)


def _reference(case: Case, q: Any, k: Any, v: Any, dtype: Any) -> Any:
    """Return plain attention of every sequence of the case, packed."""
    import torch

    sequences = [q.split(case.queries), k.split(case.keys), v.split(case.keys)]
    parts = zip(*sequences)  # noqa: B905  (strict= needs Python 3.10)
    return torch.cat([attention(*part, causal=case.causal, dtype=dtype) for part in parts])


def _with_gradients(
    function: Callable[..., Any], q: Any, k: Any, v: Any, gradient: Any, backward: bool
) -> tuple[Any | None, ...]:
    """Return the function's output, then its gradients for q, k and v where asked."""
    import torch

    if not backward:
        with torch.no_grad():
            return (function(q, k, v),)
    leaves = [tensor.detach().requires_grad_() for tensor in (q, k, v)]
    out = function(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, gradient.to(out.dtype)))
