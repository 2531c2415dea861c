"""Whether bf16 matrix products run on this GPU's tensor cores, at a speed that the GPU should reach."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import nvidia
from .framework import Answer, Expect, check, failed, passed
from .gpu_faults import GPU_ERROR, of_the_host
from .timing import device_times, median_ms

SIZE = 4096
FLOP = 2 * SIZE**3

# Any GPU: how many times faster than fp32 (without TF32) a bf16 product must be. Without tensor cores the factor is at
# most 1 on GA102 and AD102 chips, where bf16 and fp32 units are the same; with them the data sheets give from 2.0
# (RTX 4090) to 16 (A100), and an H100 measured 12.3. 1.5 lies between the two for these chips, so it needs no table.
MIN_RATIO = 1.5

# GPUs without a limit of their own: share of the data sheet's peak below which the row fails. It is the share that the
# article's limit for the A10 stands for (3.0 ms = 46 of 125 TFLOP/s); a good product reaches 60 to 85 %.
MIN_SHARE = 0.37

# A GPU of a better bin or overclocked beats its data sheet by some percent (RTX 4090: 169 of 165.2 TFLOP/s published,
# factory clocks 10 % higher exist). Work that is not done is far above.
MAX_SHARE = 1.25

# A GPU that nobody uses is 0 % busy; a display or a monitor's own queries make it a few.
FREE_PERCENT = 10
# Below this share of its highest clock a GPU cannot be held to its limit, which leaves it half its usual speed. An H100
# at this work ran at 1905 to 1935 of 1980 MHz.
FULL_CLOCK = 0.6


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


def judge(device: str, bf16_ms: float, fp32_ms: float, peak_tflops: float | None) -> tuple[list[str], dict[str, Any]]:
    """Return what is wrong with two median times in ms (nothing: passed), and the numbers behind it."""
    limit = limit_for(device, peak_tflops)
    tflops = FLOP / bf16_ms / 1e9
    data: dict[str, Any] = {
        "device": device, "bf16_ms": round(bf16_ms, 4), "fp32_ms": round(fp32_ms, 4), "tflops": round(tflops, 1),
        "ratio": round(fp32_ms / bf16_ms, 2), "peak_tflops": peak_tflops,
        "share_of_peak": round(tflops / peak_tflops, 3) if peak_tflops else None,
        "usual_ms": round(limit.usual_ms, 4) if limit else None, "max_ms": round(limit.max_ms, 4) if limit else None,
        "limit_source": limit.source if limit else "no table entry: the ratio alone decides",
    }  # fmt: skip
    wrong = []
    if fp32_ms / bf16_ms < MIN_RATIO:
        wrong.append(f"only {data['ratio']} x as fast as fp32 (at least {MIN_RATIO}): no tensor cores at work")
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
    slow for this GPU, counts against the image only where the GPU was free and at its clocks.
    """
    import torch

    required = f"4096^3: right, >= {MIN_RATIO} x fp32, and within the GPU's limit"
    uuid = (expect["gpu"] or {}).get("uuid", "")
    busy_before = others_work(uuid)
    torch.set_float32_matmul_precision("highest")
    try:
        device = torch.cuda.get_device_name(0)
        a32, b32 = (torch.randn(SIZE, SIZE, device="cuda") for _ in range(2))
        a16, b16 = a32.bfloat16(), b32.bfloat16()
        exact = a16.float() @ b16.float()
        error = ((a16 @ b16).float() - exact).norm().div(exact.norm()).item()
        if not error < 0.01:  # rounding the result to bf16 alone gives 0.0017
            return failed(required, f"bf16 product differs from fp32 by {error:.3g} (relative)", error=error)
        times = device_times(lambda: a16 @ b16, repeats=200, warmup=50)
        bf16_ms = sorted(times)[len(times) // 2]
        fp32_ms = median_ms(lambda: a32 @ b32, repeats=20, warmup=5)
        clocks, slow_because = clocks_during(uuid, lambda: a16 @ b16)
    except RuntimeError as trouble:
        if of_the_host(str(trouble)) or not GPU_ERROR.search(str(trouble)):
            raise
        return failed(required, "a matrix product does not run", str(trouble))
    model = model_of(expect, device)
    wrong, data = judge(device, bf16_ms, fp32_ms, model["bf16_tflops"] if model else None)
    data.update(relative_error=error, fastest_ms=round(min(times), 4), slowest_ms=round(max(times), 4), **clocks)
    share = f", {data['share_of_peak']:.0%} of peak" if data["share_of_peak"] else ""
    measured = f"{device}: {bf16_ms:.3f} ms, {data['tflops']} TFLOP/s{share}, {data['ratio']} x fp32"
    if wrong and only_slow(data):
        data["cause"] = busy_before or slow_because
        if data["cause"]:
            text = f"{measured}: too slow, but {data['cause']}: run it again"
            return Answer("error", required, text, "\n".join(wrong), data)
    if wrong:
        return failed(required, f"{measured}: {wrong[0]}", "\n".join(wrong), **data)
    if data["usual_ms"] and bf16_ms > data["usual_ms"]:
        measured += f" (slower than the usual {data['usual_ms']} ms)"
    return passed(required, measured, **data)


def only_slow(data: dict[str, Any]) -> bool:
    """Say whether a product that did not pass is at fault in nothing but its time: tensor cores did work."""
    return bool(data["ratio"] >= MIN_RATIO and data["max_ms"] and data["bf16_ms"] > data["max_ms"])


def others_work(uuid: str) -> str:
    """Say that somebody else uses the GPU, or that nobody can tell; empty when it is free.

    Asked before this check's own work, some seconds after the check before it.
    """
    try:
        share = nvidia.utilization(uuid)
    except (OSError, nvidia.DriverError) as error:
        return f"nobody can tell whether others used the GPU ({error})"
    return f"the GPU was {share} % busy with other work before the check began" if share > FREE_PERCENT else ""


def clocks_during(uuid: str, work: Callable[[], object]) -> tuple[dict[str, Any], str]:
    """Return the GPU's clocks while it works, in MHz, and what keeps it slower than it is made for.

    The second is empty for nothing, and says so where nobody can tell.
    """
    import torch

    for _ in range(200):
        work()
    try:
        clocks = nvidia.clocks(uuid)  # while the work just queued is under way
    except (OSError, nvidia.DriverError) as error:
        return {}, f"nobody can tell what the GPU's clocks were ({error})"
    finally:
        torch.cuda.synchronize()
    why = ", ".join(clocks.held_down)
    if not why and clocks.sm_mhz < FULL_CLOCK * clocks.max_sm_mhz:
        why = "its clock is low"
    slow = f"the GPU is held back: {why} ({clocks.sm_mhz} of {clocks.max_sm_mhz} MHz)" if why else ""
    return {"sm_mhz": clocks.sm_mhz, "max_sm_mhz": clocks.max_sm_mhz, "held_down": list(clocks.held_down)}, slow
