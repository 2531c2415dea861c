"""`bf16.tensor-cores`, without a GPU: limits, and whose fault a slow product is."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from checks_package import family

from assay import releases

bf16, nvidia, framework = map(family, ("bf16", "nvidia", "framework"))


def expectation(**changes):
    return framework.Expect({"gpu": {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"}, "gpus": [], **changes})


@pytest.mark.parametrize(
    ("device", "bf16_ms", "fp32_ms", "peak", "wrong"),
    [
        ("NVIDIA A10", 1.8, 6.5, 125.0, None),
        ("NVIDIA A10", 3.1, 9.0, 125.0, "above the limit of 3.000 ms"),
        ("NVIDIA H100 80GB HBM3", 0.225, 2.77, 989.0, None),
        ("NVIDIA H100 80GB HBM3", 0.9, 2.77, 989.0, "above the limit of 0.450 ms"),
        ("NVIDIA H100 80GB HBM3", 0.1, 2.77, 989.0, "more than the GPU's peak"),
        ("NVIDIA GeForce RTX 4090", 0.95, 1.9, 165.2, None),
        ("NVIDIA GeForce RTX 4090", 0.75, 1.9, 165.2, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 1.6, 19.0, None, None),
        ("NVIDIA GeForce RTX 4090", 1.9, 1.9, 165.2, "no tensor cores"),
        ("NVIDIA GeForce RTX 4090", 2.4, 4.0, 165.2, "37% of the peak"),
        ("A GPU of tomorrow", 1.0, 9.0, None, None),
        ("A GPU of tomorrow", 1.0, 1.1, None, "no tensor cores"),
    ],
)
def test_bf16_limits(device, bf16_ms, fp32_ms, peak, wrong):
    found, data = bf16.judge(device, bf16_ms, fp32_ms, peak)
    json.dumps(data)
    assert not found if wrong is None else any(wrong in line for line in found)


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


SLOW = {"ratio": 12.0, "bf16_ms": 0.9, "max_ms": 0.45}
CLOCKS = {"sm_mhz": 1700, "max_sm_mhz": 1980, "held_down": ()}


def test_only_time_can_be_the_machines_fault():
    assert bf16.only_slow(SLOW)
    assert not bf16.only_slow({**SLOW, "ratio": 1.1})  # no tensor cores, at whatever clock
    assert not bf16.only_slow({**SLOW, "bf16_ms": 0.1})  # faster than the GPU's peak
    assert not bf16.only_slow({**SLOW, "max_ms": None})


@pytest.mark.parametrize(
    ("share", "why"),
    [(0, ""), (7, ""), (98, "98 % busy with other work"), (None, "nobody can tell whether others used the GPU")],
)
def test_other_work_on_the_gpu_is_seen_before_the_check_begins(monkeypatch, share, why):
    def utilization(uuid):
        if share is None:
            raise nvidia.DriverError("nvmlDeviceGetUtilizationRates", 3, "Not Supported")
        return share

    monkeypatch.setattr(nvidia, "utilization", utilization)
    assert why in bf16.others_work("GPU-1")
    assert bool(why) == bool(bf16.others_work("GPU-1"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"sm_mhz": 900}, "the GPU is held back: its clock is low (900 of 1980 MHz)"),
        ({"held_down": ("it is too hot",)}, "the GPU is held back: it is too hot (1700 of 1980 MHz)"),
    ],
)
def test_a_gpu_that_is_held_back_is_seen_while_it_works(monkeypatch, change, why):
    order = []
    torch = SimpleNamespace(cuda=SimpleNamespace(synchronize=lambda: order.append("synchronised")))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(nvidia, "clocks", lambda uuid: order.append("read") or nvidia.Clocks(**{**CLOCKS, **change}))
    data, found = bf16.clocks_during("GPU-1", lambda: order.append("work"))
    assert found == why
    assert order[-3:] == ["work", "read", "synchronised"]
    assert data["max_sm_mhz"] == 1980


def test_the_gpus_entry_is_found_by_the_drivers_name():
    h100 = releases.load().gpu("H100").model_dump()
    a10 = releases.load().gpu("A10").model_dump()
    name = "NVIDIA H100 80GB HBM3"
    assert bf16.model_of(expectation(gpus=[a10, h100]), name)["bf16_tflops"] == 989.0
    assert bf16.model_of(expectation(gpu={"name": name, "model": h100}, gpus=[a10]), name)["name"] == "H100"
    assert bf16.model_of(expectation(gpus=[a10]), name) is None
