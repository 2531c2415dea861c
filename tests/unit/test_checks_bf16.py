"""`bf16.tensor-cores`, without a GPU: limits, and whose fault a slow product is."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from checks_package import family

from assay import releases

bf16, framework = map(family, ("bf16", "framework"))


def expectation(**changes):
    return framework.Expect({"gpu": {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"}, "gpus": [], **changes})


@pytest.mark.parametrize(
    ("device", "capability", "bf16_ms", "fp32_ms", "peak", "wrong"),
    [
        ("NVIDIA A10", "8.6", 1.8, 6.5, 125.0, None),
        ("NVIDIA A10", "8.6", 3.1, 9.0, 125.0, "above the limit of 3.000 ms"),
        ("NVIDIA H100 80GB HBM3", "9.0", 0.225, 2.77, 989.0, None),
        ("NVIDIA H100 80GB HBM3", "9.0", 0.9, 2.77, 989.0, "above the limit of 0.450 ms"),
        ("NVIDIA H100 80GB HBM3", "9.0", 0.1, 2.77, 989.0, "more than the GPU's peak"),
        ("NVIDIA GeForce RTX 4090", "8.9", 0.95, 1.9, 165.2, None),
        ("NVIDIA GeForce RTX 4090", "8.9", 0.75, 1.9, 165.2, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0", 1.6, 19.0, None, None),
        ("NVIDIA GeForce RTX 4090", "8.9", 1.9, 1.9, 165.2, "no tensor cores"),
        ("NVIDIA GeForce RTX 4090", "8.9", 2.4, 4.0, 165.2, "37% of the peak"),
        ("A GPU of tomorrow", "13.0", 1.0, 9.0, None, None),
        ("A GPU of tomorrow", "13.0", 1.0, 1.1, None, "no tensor cores"),
        # Without tensor cores: plain bf16 at twice the speed of fp32, and plain fp16 on an A100 at four times.
        ("NVIDIA A800-SXM4-80GB", "8.0", 3.7, 7.4, None, "only 2.0 x as fast as fp32 (at least 6.0)"),
        ("NVIDIA A100-4C", "8.0", 1.85, 7.4, None, "no tensor cores"),
        ("NVIDIA GH200 480GB", "9.0", 1.2, 2.4, None, "no tensor cores"),
        ("NVIDIA B300", "10.3", 1.0, 2.0, None, "no tensor cores"),
        ("NVIDIA A800-SXM4-80GB", "8.0", 0.6, 7.4, None, None),
        ("NVIDIA H20", "9.0", 1.1, 3.5, None, None),  # 3.2 x is what its tensor cores give
        ("NVIDIA H20-3e", "9.0", 1.8, 3.6, None, "(at least 2.6): no tensor cores"),
        ("NVIDIA H200 NVL", "9.0", 0.8, 2.6, None, "(at least 6.0): no tensor cores"),
        ("NVIDIA GeForce RTX 5090", "12.0", 0.75, 1.5, None, None),  # x.0, and no data-centre chip
    ],
)
def test_bf16_limits(device, capability, bf16_ms, fp32_ms, peak, wrong):
    found, data = bf16.judge(device, capability, [bf16_ms] * 3, [fp32_ms] * 3, peak)
    json.dumps(data)
    assert not found if wrong is None else any(wrong in line for line in found)


def test_a_burst_of_others_work_changes_the_ratio_in_neither_direction():
    """As in tests/gpu/host_checks.py: a product of 2.7 ms takes 13.8 while others have their turns in between."""
    name = "A GPU without a limit"
    found, data = bf16.judge(name, "9.0", [1.3] * 200, [2.6] * 5 + [13.8] * 15, None)
    assert (data["ratio"], data["fp32_ms"]) == (2.0, 13.8)
    assert any("no tensor cores" in line for line in found)
    found, data = bf16.judge(name, "9.0", [0.2] * 80 + [7.4] * 120, [2.6] * 20, None)
    assert (data["ratio"], data["bf16_ms"], found) == (13.0, 7.4, [])


def test_the_ratio_asked_for_lies_below_what_was_measured_and_what_every_entry_of_its_chips_promises():
    """fp32 without tensor cores, in TFLOP/s, of the same data sheets: what the ratios are made of."""
    fp32 = {"A100": 19.5, "A30": 10.3, "H100": 67.0, "H100 PCIe": 51.0, "H100 NVL": 60.0, "H200": 67.0, "B200": 75.0}
    gpus = [gpu for gpu in releases.load().gpus.values() if bf16.ratio_for("", gpu.capability).least > bf16.MIN_RATIO]
    assert {gpu.name for gpu in gpus} == fp32.keys()
    for gpu in gpus:
        assert 4 < bf16.ratio_for("", gpu.capability).least < 0.5 * gpu.bf16_tflops / fp32[gpu.name]


def test_the_articles_a10_figures_are_kept():
    limit = bf16.limit_for("NVIDIA A10", 125.0)
    assert (limit.usual_ms, limit.max_ms) == (1.8, 3.0)
    assert "article" in limit.source


def test_own_limits_are_for_gpus_of_the_releases_table_and_above_their_floor():
    table = releases.load()
    devices = ["NVIDIA A10", "NVIDIA H100 80GB HBM3", "NVIDIA H200"]
    for device in devices:
        peak = table.gpu_of_device(device).bf16_tflops
        limit = bf16.limit_for(device, peak)
        assert bf16.FLOP / peak / 1e9 < limit.usual_ms < limit.max_ms
    assert all(any(bf16.re.search(limit.device, device) for device in devices) for limit in bf16.LIMITS)


SLOW = {"ratio": 12.0, "share_of_peak": 0.2}
BUSY = ("the GPU was busy", "the GPU was busy")
UNKNOWN = ("", "nobody can tell")


@pytest.mark.parametrize(
    ("wrong", "change", "slow_because", "others", "why"),
    [
        ([], {}, "", ("", ""), ""),
        ([], {}, "it is too hot", UNKNOWN, ""),  # fast all the same; a virtual GPU
        ([], {}, "", BUSY, "fast enough, but the GPU was busy"),
        ([], {"share_of_peak": None}, "", BUSY, "fast enough, but the GPU was busy"),  # no entry in the table
        (["slow"], {}, "", ("", ""), ""),
        (["slow"], {}, "it is too hot", ("", ""), "too slow, but it is too hot"),
        (["slow"], {}, "", UNKNOWN, "too slow, but nobody can tell"),
        (["no tensor cores"], {"ratio": 1.1}, "it is too hot", UNKNOWN, ""),  # at whatever clock
        (["no tensor cores"], {"ratio": 1.1}, "", BUSY, "too slow, but the GPU was busy"),
        (["more than the peak"], {"share_of_peak": 1.4}, "it is too hot", BUSY, ""),
    ],
)
def test_on_a_gpu_that_others_use_nothing_is_fast_or_slow(wrong, change, slow_because, others, why):
    """The ratio to fp32 was 69 on an H100 with three others, instead of 15: fp32 was interrupted, and bf16 was not."""
    seen, not_excluded = others
    gpu = SimpleNamespace(seen=lambda: seen, not_excluded=lambda: not_excluded)
    assert bf16.why_not_told(wrong, {**SLOW, **change}, slow_because, gpu) == why


def test_the_gpus_entry_is_found_by_the_drivers_name():
    h100 = releases.load().gpu("H100").model_dump()
    a10 = releases.load().gpu("A10").model_dump()
    name = "NVIDIA H100 80GB HBM3"
    assert bf16.model_of(expectation(gpus=[a10, h100]), name)["bf16_tflops"] == 989.0
    assert bf16.model_of(expectation(gpu={"name": name, "model": h100}, gpus=[a10]), name)["name"] == "H100"
    assert bf16.model_of(expectation(gpus=[a10]), name) is None
