"""Whether flash-attn computes the right thing on this GPU, with its own kernels, and fast enough to be worth having."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median
from typing import Any

from .attention_reference import CASES, Accuracy, measure
from .flash_attention import has_flash_attn
from .framework import Answer, Expect, check, failed, passed
from .gpu_faults import GPU_ERROR, of_the_host
from .kernels import FLASH_ATTN_FORWARD, ProfilerBlindError, launched
from .slow_gpu import Others, clocks_during
from .timing import median_ms, times_in_turn

HEAD_DIMS = (32, 64, 96, 128, 192, 256)  # every head dim that flash-attn 2 has kernels for
TORCH_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
BATCH, TOKENS, HEADS = 2, 4096, 24

# How much faster than SDPA's math path flash-attn has to be. The math path writes and reads the 4096 x 4096 scores of
# every head, flash-attn never does. Measured on an H100 at head dim 128 with torch 2.4: 4.458 ms against 1.315 ms, a
# factor of 3.4; smaller head dims do less arithmetic for the same scores, so the factor grows. (With torch 2.11, whose
# math path is slower, it is 17 to 22.) A package that is the math path in disguise has factor 1. The limit is the
# geometric middle of 1 and 3.4.
MATH_FACTOR = 1.8


def math_factor(head_dim: int) -> float:
    """Return how much faster than the math path flash-attn has to be at a head dim.

    Beyond 128 its work grows with the head dim, while the math path's traffic for the scores does not.
    """
    return 1 + (MATH_FACTOR - 1) * min(1.0, 128 / head_dim)


@check(
    "flash-attn.numerics",
    "Is flash-attn as exact as its own tests ask for, on this GPU?",
    needs=("gpu.matches-row", "flash-attn.import"),
    level="gpu",
    timeout=600,  # 4 to 14 s on an H100; 170 s where the package was SDPA: cuDNN compiles a kernel for every shape
    applies=has_flash_attn,
)
def numerics(expect: Expect) -> Answer:
    """Hold every head dim of the wheel against an fp32 reference (`attention_reference`).

    Head dims and dtypes that the row asks for must be there; the others are tried, and what the build refuses in its
    own words is recorded as absent. Any other error counts as wrong, and the cases after it are asked all the same.
    """
    import torch

    torch.set_float32_matmul_precision("highest")
    import flash_attn  # after torch, as flash-attn.import tries it

    asked = expect["flash_attn"]["head_dims"]
    required = f"head dims {', '.join(map(str, asked))} and all others in the wheel: error <= 2 x PyTorch's, no bias"
    wrong: list[str] = []
    absent: dict[str, str] = {}
    table: list[dict[str, Any]] = []
    for name in expect["flash_attn"]["dtypes"]:
        for head_dim in HEAD_DIMS:
            label = f"{name} head dim {head_dim}"
            tried = try_cases(head_dim, name, flash_attn, expect["seed"])
            if tried.gpu_error:
                return failed(required, f"{label} does not run", f"{label}: {tried.gpu_error}")
            if head_dim in asked:
                wrong += [f"{what}: refused: {text}" for what, text in tried.absent.items()]
            absent.update(tried.absent)
            wrong += tried.wrong
            if tried.results:
                table.append({"dtype": name, "head_dim": head_dim, **summary(tried.results)})
    backward = gradients(expect, flash_attn, wrong)
    data = {"accuracy": table, "absent": absent, "backward": backward}
    if wrong:
        return failed(required, f"{len(wrong)} results are off; the first: {wrong[0]}", "\n".join(wrong[:40]), **data)
    there = sorted({row["head_dim"] for row in table})
    worst = max(table, key=lambda row: row["error_of_limit"])
    measured = (
        f"head dims {', '.join(map(str, there))}, {len(CASES)} cases each: "
        f"error at most {worst['error_of_limit']:.0%} of the limit ({worst['dtype']} {worst['head_dim']}); "
        f"backward: {backward['state']}"
    )
    return passed(required, measured, "\n".join(f"{label}: {text}" for label, text in absent.items()), **data)


def gradients(expect: Expect, flash: Any, wrong: list[str]) -> dict[str, Any]:
    """Measure the gradients where the build has the backward pass; what is off goes to `wrong`."""
    table: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    for name in expect["flash_attn"]["dtypes"]:
        for head_dim in expect["flash_attn"]["head_dims"]:
            tried = try_cases(head_dim, name, flash, expect["seed"], backward=True)
            wrong += tried.wrong
            absent.update(tried.absent)
            if tried.results:
                table.append({"dtype": name, "head_dim": head_dim, **summary(tried.results)})
            if tried.gpu_error:
                wrong.append(f"{name} head dim {head_dim} backward: {tried.gpu_error}")
                return {"state": "does not run", "absent": absent, "accuracy": table}
    state = "checked" if not absent else "checked where this build has it" if table else "not in this build"
    return {"state": state, "absent": absent, "accuracy": table}


@dataclass(frozen=True)
class Tried:
    """What became of the cases of one head dim and dtype.

    results: of the cases that ran. absent: what the build refuses to do, each with its own words. wrong: what is off,
    and errors that are no refusal. gpu_error: the GPU's own, after which nothing runs in this process; empty for none.
    """

    results: list[Accuracy]
    absent: dict[str, str]
    wrong: list[str]
    gpu_error: str = ""


def try_cases(head_dim: int, name: str, flash: Any, seed: int, *, backward: bool = False) -> Tried:
    """Run every case of one head dim, in a dtype by flash-attn's name for it, whatever became of the cases before.

    Raises RuntimeError for trouble of the machine, which says nothing about the image.
    """
    import torch

    label = f"{name} head dim {head_dim}{' backward' if backward else ''}"
    results: list[Accuracy] = []
    refused: dict[str, str] = {}
    errors: list[str] = []
    gpu_error = ""
    for case in CASES:
        try:
            results += measure(
                case, head_dim, getattr(torch, TORCH_DTYPES[name]), flash, device="cuda", seed=seed, backward=backward
            )
        except RuntimeError as error:
            if of_the_host(str(error)):
                raise
            if GPU_ERROR.search(str(error)):
                gpu_error = str(error)
                break
            if refuses(first_line(error), head_dim, name, backward=backward):
                refused[case.name] = first_line(error)
            else:
                errors.append(f"{label}: {case.name}: {first_line(error)}")
    off = [f"{name} head dim {head_dim}: {accuracy}" for accuracy in results if not accuracy.ok]
    if len(refused) == len(CASES):
        return Tried(results, {label: next(iter(refused.values()))}, off + errors, gpu_error)
    return Tried(results, {f"{label}: {case}": text for case, text in refused.items()}, off + errors, gpu_error)


def refuses(text: str, head_dim: int, name: str, *, backward: bool) -> bool:
    """Say whether an error's first line is a build's own word for a pass that it was made without.

    The words are flash-attn's (csrc/flash_attn/flash_api.cpp), those of a lean wheel about the kernels that it leaves
    out (docker/flash-attn/wheel/absent_kernels.cpp.in), and those of the wheels of examples/gpu-host. Every other error
    is a fault: a kernel that raises, or a gradient of the wrong shape, would else pass for one that was left out.
    """
    what = "backward" if backward else "(?:split-KV )?forward"
    kernel = rf"head dim {head_dim} in {name}\b"
    words = [
        rf"flash-attn \S+ was built without the {what} kernel for {kernel}",
        rf"This flash attention build does not contain {kernel}",
    ]
    if backward:
        words += [
            r"This flash attention build does not support backward\.",
            r"FlashAttention backward for head dim > \d+ requires A100/A800 or H100/H800",  # before 2.5.5
        ]
    return re.search("|".join(words), text) is not None


def summary(results: list[Accuracy]) -> dict[str, Any]:
    """Return the numbers of one head dim that the certificate keeps: the worst over its cases."""
    finite = [result for result in results if result.finite]
    return {
        "error": max((result.error for result in finite), default=None),
        "pytorch_error": max((result.baseline for result in finite), default=None),
        "error_of_limit": max((result.error / result.limit for result in finite), default=None),
        "slope_off": max((abs(result.slope - 1) for result in finite), default=None),
        "finite": len(finite) == len(results),
    }


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text: torch appends a C++ stack to it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@check(
    "flash-attn.speed",
    "Do flash-attn's own kernels run, and do they outrun plain attention?",
    needs=("gpu.matches-row", "flash-attn.import"),
    level="gpu",
    timeout=180,
    applies=has_flash_attn,
)
def speed(expect: Expect) -> Answer:
    """Prove by the profiler that flash-attn's forward kernels ran, and time them against SDPA's math path.

    Own kernels that were seen and are too slow count against the image only where the GPU was free and at its clocks.
    That they are fast enough is believed on a free GPU only: others' work slows the longer path more.
    """
    import torch

    torch.manual_seed(expect["seed"])
    import flash_attn  # after torch, as flash-attn.import tries it

    name = "bf16" if "bf16" in expect["flash_attn"]["dtypes"] else expect["flash_attn"]["dtypes"][0]
    required = f"kernels of flash-attn (flash::flash_fwd_*) run, dense and varlen, >= {MATH_FACTOR} x SDPA's math path"
    uuid = (expect["gpu"] or {}).get("uuid", "")
    others = Others(uuid)
    unseen: list[str] = []
    slow: list[str] = []
    slow_because = ""
    table: list[dict[str, Any]] = []
    for head_dim in expect["flash_attn"]["head_dims"]:
        try:
            row, foreign, held_back = race(flash_attn, head_dim, name, uuid)
        except ProfilerBlindError as error:
            return Answer("error", required, "the profiler is blind here, so nothing is proved", str(error))
        except RuntimeError as error:
            if of_the_host(str(error)):
                raise
            return failed(required, f"head dim {head_dim} does not run", f"head dim {head_dim}: {error}")
        table.append(row)
        for function, kernels in row["kernels"].items():
            if not kernels:
                seen = "; ".join(dict.fromkeys(kernel[:160] for kernel in foreign[function])) or "none"
                unseen.append(
                    f"head dim {head_dim}: no flash::flash_fwd kernel ran in {function}; kernels seen: {seen}"
                )
        least = math_factor(head_dim)
        if row["math_factor"] < least:
            slow_because = slow_because or held_back
            slow.append(
                f"head dim {head_dim}: {row['ms']:.3f} ms, only {row['math_factor']} x SDPA's math path "
                f"(at least {least:.2f})"
            )
    measured = "; ".join(
        f"head dim {row['head_dim']}: {row['tflops']} TFLOP/s, {row['math_factor']} x math" for row in table
    )
    cause = ""
    if not unseen:
        cause = slow_because or others.not_excluded() if slow else others.seen()
    if cause:
        text = f"{measured}: {'too slow' if slow else 'fast enough'}, but {cause}: run it again"
        return Answer("error", required, text, "\n".join(slow), {"speed": table, "cause": cause})
    wrong = unseen + slow
    if wrong:
        return failed(required, wrong[0], "\n".join(wrong), speed=table)
    if others.not_excluded():
        measured += f"; {others.not_excluded()}"
    return passed(required, measured, speed=table)


def race(flash_attn: Any, head_dim: int, name: str, uuid: str) -> tuple[dict[str, Any], dict[str, list[str]], str]:
    """Run and time one head dim, in a dtype by flash-attn's name for it, on the GPU with a UUID.

    Returns the row of the table (times in ms; flash-attn's own kernels by the function that launched them; clocks), the
    names of the other kernels that were seen, and what holds the GPU back (empty for nothing).
    Raises ProfilerBlindError, and RuntimeError as the GPU gives it.
    """
    import torch
    import torch.nn.functional as functional
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shape = (BATCH, TOKENS, HEADS, head_dim)
    q, k, v = (torch.randn(shape, device="cuda", dtype=getattr(torch, TORCH_DTYPES[name])) for _ in range(3))
    heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
    starts = torch.arange(BATCH + 1, device="cuda", dtype=torch.int32) * TOKENS
    packed = [tensor.flatten(0, 1) for tensor in (q, k, v)]

    def flash() -> Any:
        return flash_attn.flash_attn_func(q, k, v)

    def varlen() -> Any:
        return flash_attn.flash_attn_varlen_func(*packed, starts, starts, TOKENS, TOKENS)

    def sdpa() -> Any:
        return functional.scaled_dot_product_attention(*heads_first)

    def math() -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return sdpa()

    seen = {"flash_attn_func": launched(flash), "flash_attn_varlen_func": launched(varlen)}
    own = {function: [one for one in ran if FLASH_ATTN_FORWARD.search(one)] for function, ran in seen.items()}
    foreign = {function: [one for one in ran if one not in own[function]] for function, ran in seen.items()}
    flash_times, math_times = times_in_turn([flash, math], repeats=15, warmup=3)
    flash_ms = median(flash_times)
    clocks, held_back = clocks_during(uuid, flash)
    sdpa_ms = median_ms(sdpa, repeats=30)
    flops = 4 * BATCH * HEADS * TOKENS**2 * head_dim  # two matrix products, a multiplication and an addition each
    row = {
        "head_dim": head_dim,
        "dtype": name,
        "ms": round(flash_ms, 4),
        "tflops": round(flops / flash_ms / 1e9, 1),
        "sdpa_ms": round(sdpa_ms, 4),
        "sdpa_math_ms": round(median(math_times), 4),
        # Of the fastest: interruption only lengthens a time, so a burst of others' work in between does not change it.
        "math_factor": round(min(math_times) / min(flash_times), 2),
        "kernels": {function: sorted({kernel[:200] for kernel in ran}) for function, ran in own.items()},
        **clocks,
    }
    return row, foreign, held_back
