"""Whether bf16 matrix products run on this GPU's tensor cores, at a speed that the GPU should reach."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .framework import Answer, Expect, check, failed, passed
from .gpu_faults import GPU_ERROR, of_the_host
from .slow_gpu import Others, clocks_during
from .timing import device_times

SIZE = 4096
FLOP = 2 * SIZE**3

# How many times faster than fp32 (without TF32) a bf16 product must be. Without tensor cores the factor is at most 1 on
# GA102 and AD102 chips, where bf16 and fp32 units are the same; with them the data sheets give 2.0 (RTX 4090, L40,
# A10G) and more. 1.5 lies between the two for these chips; `RATIOS` has those for which it does not.
MIN_RATIO = 1.5

# GPUs without a limit of their own: share of the data sheet's peak below which the row fails. It is the share that the
# article's limit for the A10 stands for (3.0 ms = 46 of 125 TFLOP/s); a good product reaches 60 to 85 %.
MIN_SHARE = 0.37

# A GPU of a better bin or overclocked beats its data sheet by some percent (RTX 4090: 169 of 165.2 TFLOP/s published,
# factory clocks 10 % higher exist). Work that is not done is far above.
MAX_SHARE = 1.25


@dataclass(frozen=True)
class Ratio:
    """How many times faster than fp32, without TF32, a bf16 product must be on some GPUs.

    device: regular expression for the driver's name of the GPU. capabilities: compute capabilities; the GPU has one of
    them. least: a smaller ratio fails. source: where it comes from.
    """

    device: str
    capabilities: tuple[str, ...]
    least: float
    source: str


# Chips whose plain units are faster in bf16 than in fp32: there MIN_RATIO is met without a tensor core. 12.0 is none of
# them: it is GeForce and RTX PRO, which are built as AD102 is. The first that fits counts.
RATIOS = (
    Ratio(
        r"^NVIDIA H20A?\b",
        ("9.0",),
        2.6,
        "H20 data sheet, as quoted elsewhere: 148 / 44 = 3.4; plain bf16 is 2 x fp32; the geometric middle",
    ),
    Ratio(
        "",
        ("8.0", "9.0", "10.0", "10.3"),
        6.0,
        "data sheets: A100 312 / 19.5 = 16, H100 989 / 67 = 14.8, B200 2250 / 75 = 30; plain bf16 is 2 x fp32, plain "
        "fp16 up to 4 x; measured 12.3 to 18.6 on H100, 14.7 and 16.5 on H200",
    ),
)
ANY_OTHER = Ratio("", (), MIN_RATIO, "plain bf16 is as fast as fp32; tensor cores give 2.0 (RTX 4090) and more")


@dataclass(frozen=True)
class Limit:
    """What a GPU should need for one 4096^3 product.

    device: regular expression for the driver's name of the GPU. usual_ms: what is expected; a slower one passes, and
    its answer says so. max_ms: slower than this fails. source: where both come from.
    """

    device: str
    usual_ms: float
    max_ms: float
    source: str


# Adding a GPU: run this check on one that is known to be sound, take its median as usual_ms, and twice that as max_ms.
LIMITS = (
    Limit(r"^NVIDIA A10$", 1.8, 3.0, "the article: 1.8 ms expected, above 3 ms failed; the floor is 1.10 ms"),
    Limit(
        r"^NVIDIA (H100 80GB HBM3|H200)$",
        0.225,
        0.45,
        "measured on an H100 SXM: 0.225 ms with torch 2.4.0+cu121, 0.173 ms with torch 2.11.0+cu130; twice the slower",
    ),
)


def ratio_for(device: str, capability: str) -> Ratio:
    """Return how much faster than fp32 bf16 must be, for a GPU by the driver's name and compute capability (`9.0`)."""
    fitting = (one for one in RATIOS if capability in one.capabilities and re.search(one.device, device))
    return next(fitting, ANY_OTHER)


def limit_for(device: str, peak_tflops: float | None) -> Limit | None:
    """Return the limit for a GPU by the driver's name, else one from its peak, else None where that is not known."""
    for limit in LIMITS:
        if re.search(limit.device, device):
            return limit
    if not peak_tflops:
        return None
    floor_ms = FLOP / peak_tflops / 1e9
    return Limit(
        re.escape(device),
        floor_ms / 0.6,
        floor_ms / MIN_SHARE,
        f"{MIN_SHARE:.0%} of the peak of {peak_tflops:g} TFLOP/s",
    )


def model_of(expect: Expect, device: str) -> dict[str, Any] | None:
    """Return the releases table's entry for the GPU at hand: from the host's choice, else among the row's GPUs."""
    chosen = expect["gpu"] or {}
    if chosen.get("bf16_tflops"):
        return dict(chosen)
    candidates = [chosen.get("model"), *expect["gpus"]]
    return next(
        (gpu for gpu in candidates if gpu and re.search(gpu.get("device") or re.escape(gpu["name"]), device)), None
    )


def judge(
    device: str, capability: str, bf16: Sequence[float], fp32: Sequence[float], peak_tflops: float | None
) -> tuple[list[str], dict[str, Any]]:
    """Return what is wrong with the times of the two products in ms (nothing: passed), and the numbers behind it.

    The median is held against the limit. The ratio is that of the fastest of each: interruption only lengthens a time,
    so that a burst of others' work that meets a part of either does not change it.
    """
    limit, ratio = limit_for(device, peak_tflops), ratio_for(device, capability)
    bf16_ms, fp32_ms = median(bf16), median(fp32)
    tflops = FLOP / bf16_ms / 1e9
    data: dict[str, Any] = {
        "device": device, "bf16_ms": round(bf16_ms, 4), "fp32_ms": round(fp32_ms, 4), "tflops": round(tflops, 1),
        "fastest_ms": round(min(bf16), 4), "slowest_ms": round(max(bf16), 4), "fp32_fastest_ms": round(min(fp32), 4),
        "ratio": round(min(fp32) / min(bf16), 2), "min_ratio": ratio.least, "ratio_source": ratio.source,
        "peak_tflops": peak_tflops,
        "share_of_peak": round(tflops / peak_tflops, 3) if peak_tflops else None,
        "usual_ms": round(limit.usual_ms, 4) if limit else None, "max_ms": round(limit.max_ms, 4) if limit else None,
        "limit_source": limit.source if limit else "no table entry: the ratio alone decides",
    }  # fmt: skip
    wrong = []
    if data["ratio"] < ratio.least:
        wrong.append(f"only {data['ratio']} x as fast as fp32 (at least {ratio.least}): no tensor cores at work")
    if limit and bf16_ms > limit.max_ms:
        wrong.append(f"{bf16_ms:.3f} ms, above the limit of {limit.max_ms:.3f} ms ({limit.source})")
    if peak_tflops and tflops > MAX_SHARE * peak_tflops:
        wrong.append(f"{tflops:.0f} TFLOP/s is more than the GPU's peak of {peak_tflops:g}: the work was not done")
    return wrong, data


@check(
    "bf16.tensor-cores",
    "Does a bf16 matrix product reach tensor-core speed?",
    needs=("gpu.matches-row",),
    level="gpu",
    timeout=120,
)
def tensor_cores(expect: Expect) -> Answer:
    """Time 4096 x 4096 x 4096 in bf16 and in fp32 without TF32, on random data.

    Random, because products of zeros draw less power and run at higher clocks. The bf16 result is compared with the
    fp32 one first: a product that was not computed has no speed. One that is right and much faster than fp32, but too
    slow for this GPU, counts against the image only where the GPU was free and at its clocks. That one is fast enough
    is believed on a free GPU only.
    """
    import torch

    device, capability = torch.cuda.get_device_name(0), "{}.{}".format(*torch.cuda.get_device_capability(0))
    required = f"4096^3: right, >= {ratio_for(device, capability).least} x fp32, and within the GPU's limit"
    uuid = (expect["gpu"] or {}).get("uuid", "")
    others = Others(uuid)
    torch.set_float32_matmul_precision("highest")  # no TF32: it runs on tensor cores as well
    try:
        a32, b32 = (torch.randn(SIZE, SIZE, device="cuda") for _ in range(2))
        a16, b16 = a32.bfloat16(), b32.bfloat16()
        exact = a16.float() @ b16.float()
        error = ((a16 @ b16).float() - exact).norm().div(exact.norm()).item()
        if not error < 0.01:  # rounding the result to bf16 alone gives 0.0017
            return failed(required, f"bf16 product differs from fp32 by {error:.3g} (relative)", error=error)
        bf16_times = device_times(lambda: a16 @ b16, repeats=200, warmup=50)
        fp32_times = device_times(lambda: a32 @ b32, repeats=20, warmup=5)
        clocks, slow_because = clocks_during(uuid, lambda: a16 @ b16)
    except RuntimeError as trouble:
        if of_the_host(str(trouble)) or not GPU_ERROR.search(str(trouble)):
            raise
        return failed(required, "a matrix product does not run", str(trouble))
    model = model_of(expect, device)
    wrong, data = judge(device, capability, bf16_times, fp32_times, model["bf16_tflops"] if model else None)
    data.update(relative_error=error, **clocks)
    share = f", {data['share_of_peak']:.0%} of peak" if data["share_of_peak"] else ""
    measured = f"{device}: {data['bf16_ms']:.3f} ms, {data['tflops']} TFLOP/s{share}, {data['ratio']} x fp32"
    doubt = why_not_told(wrong, data, slow_because, others)
    if doubt:
        text = f"{measured}: {doubt}: run it again"
        return Answer("error", required, text, "\n".join(wrong), {**data, "cause": doubt})
    if wrong:
        return failed(required, f"{measured}: {wrong[0]}", "\n".join(wrong), **data)
    if data["usual_ms"] and data["bf16_ms"] > data["usual_ms"]:
        measured += f" (slower than the usual {data['usual_ms']} ms)"
    if others.not_excluded():
        measured += f"; {others.not_excluded()}"
    return passed(required, measured, **data)


def why_not_told(wrong: list[str], data: dict[str, Any], slow_because: str, others: Others) -> str:
    """Say why the numbers prove nothing for or against the image; empty where they do.

    wrong, data: from `judge`. slow_because: what holds the GPU back. Others' work can make the ratio to fp32 better and
    worse than it is (`Others`), and the limit alone does not tell: an RTX 4090's plain units reach half of its peak.
    A GPU that is held back, or of which nobody can tell, explains a slow product, but not one that is hardly faster
    than fp32 on the same GPU. Nothing explains more than the peak.
    """
    if data["share_of_peak"] and data["share_of_peak"] > MAX_SHARE:
        return ""
    cause = others.seen()
    if wrong and not cause and data["ratio"] >= MIN_RATIO:
        cause = slow_because or others.not_excluded()
    return f"{'too slow' if wrong else 'fast enough'}, but {cause}" if cause else ""
