"""What `flash-attn.numerics` and `flash-attn.speed` make of what they meet, without torch, flash-attn or a GPU."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from checks_package import family

flash, nvidia, framework = map(family, ("flash_attention_gpu", "nvidia", "framework"))
Accuracy = family("attention_reference").Accuracy

NO_BACKWARD = "This flash attention build does not support backward."
SHAPE = "Function FlashAttnFuncBackward returned an invalid gradient at index 0 - got [2, 3] but expected [3, 2]"


def lean(what, head_dim, name):
    """Return what a lean wheel says of a kernel that it leaves out."""
    return (
        f"flash-attn 2.8.3+assay.hd64.bf16.sm80.fwd was built without the {what} kernel for head dim {head_dim} in "
        f"{name}. This wheel holds only the forward kernels of head dim 64 in bf16 for sm_80; each head dim also "
        "serves the sizes below it.\nException raised from absent at absent_kernels.cpp:16"
    )


def results(what, *, ok=True):
    return [Accuracy(what, error=0.1 if ok else 9.0, baseline=0.1, limit=0.2, slope=1.0, slope_limit=0.01)]


@pytest.fixture
def numerics(monkeypatch):
    """The check, for head dim 64, with `measure` given as a function of case, head dim, dtype and backward."""
    torch = SimpleNamespace(bfloat16="bf16", float16="fp16", set_float32_matmul_precision=lambda precision: None)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace())

    def ask(measured, dtypes=("bf16", "fp16"), head_dims=(64,)):
        asked = []

        def measure(case, head_dim, dtype, module, *, device, seed, backward):
            asked.append((case.name, head_dim, dtype, backward))
            found = measured(case, head_dim, dtype, backward)
            if isinstance(found, str):
                raise RuntimeError(found)  # noqa: TRY004  (as flash-attn raises it)
            return results(case.name, ok=found)

        monkeypatch.setattr(flash, "measure", measure)
        raw = {"flash_attn": {"dtypes": list(dtypes), "head_dims": list(head_dims)}, "seed": 1}
        return flash.numerics(framework.Expect(raw)), asked

    return ask


def test_a_build_without_the_backward_pass_and_without_other_head_dims_passes(numerics):
    def measured(case, head_dim, dtype, backward):
        if head_dim != 64:
            return lean("split-KV forward" if "1 query" in case.name else "forward", head_dim, dtype)
        return NO_BACKWARD if backward else True

    answer, asked = numerics(measured)
    assert answer.status == "passed", answer
    assert answer.measured.endswith("backward: not in this build")
    assert "bf16 head dim 32" in answer.data["absent"]
    assert answer.data["backward"]["absent"] == {
        "bf16 head dim 64 backward": NO_BACKWARD,
        "fp16 head dim 64 backward": NO_BACKWARD,
    }
    assert len(asked) == len(flash.CASES) * 2 * (len(flash.HEAD_DIMS) + 1), "every case is asked, whatever came before"


def test_a_complete_build_passes(numerics):
    answer, _ = numerics(lambda *_: True)
    assert answer.status == "passed", answer
    assert answer.measured.endswith("backward: checked")
    assert answer.data["absent"] == {}


def test_a_gradient_of_the_wrong_shape_is_wrong(numerics):
    answer, _ = numerics(lambda case, head_dim, dtype, backward: SHAPE if backward else True)
    assert answer.status == "failed"
    assert f"bf16 head dim 64 backward: {flash.CASES[0].name}: {SHAPE}" in answer.evidence


def test_wrong_dense_gradients_are_not_lost_where_the_packed_ones_raise_or_are_absent(numerics):
    for packed in ("no such thing", NO_BACKWARD):
        answer, _ = numerics(
            lambda case, head_dim, dtype, backward, packed=packed: (
                (packed if case.packed else False) if backward else True
            )
        )
        assert answer.status == "failed", packed
        assert f"bf16 head dim 64: {flash.CASES[0].name}: error 9" in answer.evidence


def test_after_an_absence_the_other_dtypes_and_head_dims_are_asked(numerics):
    def measured(case, head_dim, dtype, backward):
        if backward and dtype == "bf16":
            return lean("backward", head_dim, dtype)
        return not (backward and head_dim == 128)

    answer, _ = numerics(measured, head_dims=(64, 128))
    assert answer.status == "failed"
    assert answer.evidence.startswith("fp16 head dim 128: ")
    assert "bf16" not in answer.evidence
    answer, _ = numerics(measured)
    assert answer.status == "passed"
    assert answer.measured.endswith("backward: checked where this build has it")


@pytest.mark.parametrize(
    "text", ["expected scalar type Half but found BFloat16", NO_BACKWARD, lean("backward", 96, "bf16")]
)
def test_a_head_dim_that_nobody_asked_for_is_absent_only_by_the_builds_own_words(numerics, text):
    answer, _ = numerics(lambda case, head_dim, dtype, backward: text if (head_dim, dtype) == (96, "bf16") else True)
    assert answer.status == "failed"
    assert text.splitlines()[0] in answer.evidence
    own = "This flash attention build does not contain head dim 96 in bf16."
    answer, _ = numerics(lambda case, head_dim, dtype, backward: own if (head_dim, dtype) == (96, "bf16") else True)
    assert answer.status == "passed"


def test_a_refusal_of_another_kernel_than_the_one_asked_for_is_wrong():
    assert flash.refuses(lean("forward", 96, "bf16"), 96, "bf16", backward=False)
    assert not flash.refuses(lean("forward", 128, "bf16"), 96, "bf16", backward=False)
    assert not flash.refuses(lean("forward", 96, "fp16"), 96, "bf16", backward=False)
    assert not flash.refuses(lean("forward", 96, "bf16"), 96, "bf16", backward=True)
    assert flash.refuses(lean("backward", 96, "bf16"), 96, "bf16", backward=True)
    assert not flash.refuses("This flash attention build does not support dropout.", 96, "bf16", backward=True)


def test_a_head_dim_that_the_row_asks_for_must_not_be_refused(numerics):
    def measured(case, head_dim, dtype, backward):
        return lean("split-KV forward", 64, "bf16") if "1 query" in case.name and head_dim == 64 else True

    answer, _ = numerics(measured, dtypes=("bf16",))
    assert answer.status == "failed"
    assert answer.evidence.startswith(
        "bf16 head dim 64: dense 1 query, 2047 keys, GQA 24/8: refused: flash-attn 2.8.3+assay"
    )


def test_trouble_of_the_gpu_ends_the_check_and_trouble_of_the_host_gives_no_verdict(numerics):
    dead = "CUDA error: no kernel image is available for execution on the device"
    answer, asked = numerics(lambda *_: dead)
    assert (answer.status, len(asked)) == ("failed", 1)
    answer, asked = numerics(lambda case, head_dim, dtype, backward: dead if backward else True)
    assert (answer.status, answer.data["backward"]["state"]) == ("failed", "does not run")
    assert [backward for *_, backward in asked].count(True) == 1
    with pytest.raises(RuntimeError, match="out of memory"):
        numerics(lambda case, head_dim, dtype, backward: "CUDA out of memory" if backward else True)


FREE, BUSY = [0, 0], [0, 97]


def told(share):
    """Return what NVML tells, or raise as it does where it tells nothing."""
    if share is None:
        raise nvidia.DriverError("nvmlDeviceGetUtilizationRates", 3, "Not Supported")
    return share


@pytest.fixture
def speed(monkeypatch):
    """The check, with the time of flash-attn in ms, whether its kernels were seen, and what the machine was like."""
    torch = SimpleNamespace(manual_seed=lambda seed: None, empty=lambda size, device: None)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace())
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def ask(ms, *, kernels=("flash::flash_fwd_kernel",), held_back="", busy=FREE):
        shares = iter(busy)
        monkeypatch.setattr(nvidia, "utilization", lambda uuid: told(next(shares)))
        functions = ("flash_attn_func", "flash_attn_varlen_func")
        row = {
            "head_dim": 128, "ms": ms, "sdpa_math_ms": 4.4, "math_factor": round(4.4 / ms, 2), "tflops": 300.0,
            "kernels": {function: list(kernels) for function in functions},
        }  # fmt: skip
        others = {function: ["other"] for function in functions}
        monkeypatch.setattr(flash, "race", lambda *_: (row, others, held_back))
        raw = {"flash_attn": {"dtypes": ["bf16"], "head_dims": [128]}, "seed": 1, "gpu": {"uuid": "GPU-1"}}
        return flash.speed(framework.Expect(raw))

    return ask


def test_a_fast_package_passes_on_a_gpu_that_is_held_back_too(speed):
    assert speed(1.3).status == "passed"
    assert speed(1.3, held_back="the GPU is held back").status == "passed"


def test_a_package_is_not_called_fast_on_a_gpu_that_others_use(speed):
    """Beside three others, flash-attn at 49 TFLOP/s was 10.7 times as fast as the math path."""
    for busy in ([98, 98], BUSY):
        answer = speed(1.3, busy=busy)
        assert (answer.status, answer.data["speed"][0]["math_factor"]) == ("error", 3.38)
        assert "fast enough, but the GPU was 9" in answer.measured
        assert answer.measured.endswith("run it again")


def test_a_pass_says_where_nobody_can_tell_whether_others_used_the_gpu(speed):
    answer = speed(1.3, busy=[None, None])
    assert answer.status == "passed"
    assert "; nobody can tell whether others used the GPU (nvmlDeviceGetUtilizationRates" in answer.measured
    assert "nobody" not in speed(1.3).measured


def test_a_slow_package_on_a_free_gpu_fails(speed):
    answer = speed(4.0)
    assert (answer.status, answer.measured) == (
        "failed",
        "head dim 128: 4.000 ms, only 1.1 x SDPA's math path (at least 1.80)",
    )


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ({"busy": [98, 98]}, "98 % busy with other work before the check began"),
        ({"busy": BUSY}, "97 % busy with other work once the check's own was over"),
        ({"held_back": "the GPU is held back: it is too hot (900 of 1980 MHz)"}, "it is too hot"),
    ],
)
def test_a_slow_package_on_a_busy_or_throttled_gpu_gives_no_verdict(speed, machine, why):
    answer = speed(4.0, **machine)
    assert answer.status == "error"
    assert why in answer.measured
    assert "only 1.1 x SDPA's math path" in answer.evidence
    assert why in answer.data["cause"]


def test_a_package_whose_kernels_were_not_seen_fails_on_a_busy_gpu_too(speed):
    answer = speed(4.0, kernels=(), busy=[98, 98], held_back="the GPU is held back")
    assert answer.status == "failed"
    assert "no flash::flash_fwd kernel ran in flash_attn_func; kernels seen: other" in answer.evidence
