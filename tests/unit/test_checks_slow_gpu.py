"""Why a GPU may be slow although the image is sound, told without a GPU; and works that are timed in turn."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from checks_package import family

slow_gpu, nvidia, timing = map(family, ("slow_gpu", "nvidia", "timing"))
CLOCKS = {"sm_mhz": 1700, "max_sm_mhz": 1980, "held_down": ()}


@pytest.fixture
def others(monkeypatch):
    """`Others` on a GPU of which NVML tells one share after the other, None for that it does not; and what it did."""

    def look(*shares):
        told = iter(shares)

        def utilization(uuid):
            share = next(told)
            if share is None:
                raise nvidia.DriverError("nvmlDeviceGetUtilizationRates", 3, "Not Supported")
            return share

        order = []
        torch = SimpleNamespace(empty=lambda size, device: order.append(f"holds {device}"))
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setattr(nvidia, "utilization", utilization)
        monkeypatch.setattr(slow_gpu.time, "sleep", order.append)
        return slow_gpu.Others("GPU-1"), order

    return look


UNKNOWN = "nobody can tell whether others used the GPU"


@pytest.mark.parametrize(
    ("shares", "seen", "not_excluded", "sleeps"),
    [
        ((0, 7), "", "", 2),
        ((98,), "98 % busy with other work before the check began", "98 % busy with other work before", 1),
        ((0, 97), "97 % busy with other work once the check's own was over", "97 % busy with other work once", 2),
        ((None, None), "", UNKNOWN, 2),  # a virtual GPU
        ((0, None), "", UNKNOWN, 2),
    ],
)
def test_other_work_on_the_gpu_is_seen_before_and_after_the_checks_own(others, shares, seen, not_excluded, sleeps):
    found, order = others(*shares)
    for answer, expected in ((found.seen(), seen), (found.not_excluded(), not_excluded)):
        assert expected in answer
        assert bool(expected) == bool(answer)
    # NVML's share is of up to a second ago: the start of the GPU, and the check's own work, must be out of it.
    assert order == ["holds cuda", *[2.0] * sleeps]


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
    data, found = slow_gpu.clocks_during("GPU-1", lambda: order.append("work"))
    assert found == why
    assert order[-3:] == ["work", "read", "synchronised"]
    assert data["max_sm_mhz"] == 1980


class Device:
    """A GPU whose clock the works themselves move on, and what of torch's events times them by it."""

    def __init__(self):
        self.now = 0.0
        self.cuda = SimpleNamespace(Event=self.event, synchronize=lambda: None)

    def event(self, enable_timing):
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def work(self, milliseconds):
        """Return a work that takes three times as long in the first half of the calls: others use the GPU then."""

        def once():
            self.now += milliseconds * (3 if self.now < 100 else 1)

        return once


def test_works_take_turns_so_that_what_slows_the_gpu_meets_all_of_them(monkeypatch):
    device = Device()
    monkeypatch.setitem(sys.modules, "torch", device)
    fast, slow = timing.times_in_turn([device.work(1), device.work(4)], repeats=12, warmup=2)
    assert (len(fast), len(slow)) == (12, 12)
    assert fast.count(3) == slow.count(12) > 0
    assert timing.device_times(device.work(2), repeats=3, warmup=0) == [2, 2, 2]
