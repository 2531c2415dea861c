"""How a container gets at a GPU, decided on recorded facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from docker.api import APIClient

from assay import releases
from assay.engine import Engine, gpu_facts
from assay.engine.gpu import GpuFacts, HostGpu, choose, why_none
from assay.engine.gpu_facts import DRIVER_LIBRARY, cdi_names, driver_files, parse_smi
from assay.errors import UsageError
from assay.progress import View
from assay.workflow import Settings, _level

GIB = 1 << 30
SMI = """\
0, GPU-11111111-2222-3333-4444-555555555555, NVIDIA H100 80GB HBM3, 580.159.04, 81559, 81000, 9.0, 0, Default, [N/A]
1, GPU-66666666-7777-8888-9999-000000000000, NVIDIA H100 80GB HBM3, 580.159.04, 81559, 81500, 9.0, 0, Default, Disabled
"""
GPUS = parse_smi(SMI, {})
NODES = ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
DRIVER_FILES = (
    "libcuda.so.1",
    "libcuda.so.580.159.04",
    "libnvidia-ml.so.1",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-nvvm70.so.4",
    "libnvidia-gpucomp.so.580.159.04",
)
FILES = {"libcuda.so.1": "/usr/local/nvidia/lib64/libcuda.so.1", "nvidia-smi": "/usr/local/nvidia/bin/nvidia-smi"}


def facts(**values: object) -> GpuFacts:
    return GpuFacts(**{"gpus": GPUS[:1], "device_nodes": NODES, "driver_files": FILES, **values})  # type: ignore[arg-type]


def test_nvidia_smi_is_read_with_units() -> None:
    assert GPUS[0] == HostGpu(
        index=0,
        uuid="GPU-11111111-2222-3333-4444-555555555555",
        name="NVIDIA H100 80GB HBM3",
        driver="580.159.04",
        memory_bytes=81559 << 20,
        free_bytes=81000 << 20,
        capability="9.0",
        minor=0,
    )
    assert parse_smi("No devices were found\n", {}) == ()
    old = parse_smi("0, GPU-1, T4, 470.1, [N/A], [N/A]\n", {"GPU-1": 3})[0]  # an nvidia-smi that knows no more fields
    assert (old.minor, old.capability, old.unusable) == (3, "", "")


def test_without_a_gpu_there_is_no_access_and_forcing_it_is_an_error() -> None:
    assert choose(GpuFacts(runtimes=("runc", "nvidia"))) is None
    with pytest.raises(UsageError, match="no NVIDIA GPU"):
        choose(GpuFacts(), "devices")
    assert choose(facts(), "none") is None


@pytest.mark.parametrize(
    ("known", "mode"),
    [
        ({"runtimes": ("runc", "nvidia"), "cdi_devices": ("nvidia.com/gpu=0",)}, "runtime"),
        ({"hook": True}, "runtime"),
        ({"runtimes": ("runc",), "cdi_devices": ("nvidia.com/gpu=0",)}, "cdi"),
        ({"runtimes": ("runc", "io.containerd.runc.v2")}, "devices"),
        ({"device_nodes": ()}, None),
        ({"driver_files": {}}, None),
    ],
)
def test_the_best_way_that_is_open_is_taken(known: dict[str, object], mode: str | None) -> None:
    access = choose(facts(**known))
    assert (access.mode if access else None) == mode


def test_a_forced_way_that_is_closed_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="the engine has no NVIDIA runtime"):
        choose(facts(), "runtime")
    with pytest.raises(UsageError, match="no CDI device"):
        choose(facts(), "cdi")
    with pytest.raises(UsageError, match=r"libcuda\.so\.1"):
        choose(facts(driver_files={}), "devices")


def test_of_several_gpus_the_one_with_most_free_memory_or_the_named_one() -> None:
    several = facts(gpus=GPUS)
    chosen = {force: choose(several, force) for force in (None, "0", "1", "GPU-11111111")}
    assert [access.gpu.index if access else None for access in chosen.values()] == [1, 0, 1, 0]
    with pytest.raises(UsageError, match="0 = GPU-11111111"):
        choose(several, "7")
    with pytest.raises(UsageError, match="not one of"):
        choose(several, "GPU")


def gpu(index: int, capability: str, *, free: int, busy: int = 0, mode: str = "Default", mig: str = "[N/A]") -> HostGpu:
    line = (
        f"{index}, GPU-{index}0000000, GPU of {capability}, 580.1, 90000, {free}, {capability}, {busy}, {mode}, {mig}"
    )
    return parse_smi(line, {})[0]


@pytest.mark.parametrize(
    ("gpus", "chosen"),
    [
        # The row's kind comes before memory; within it a free GPU before a busy one.
        ((gpu(0, "7.5", free=48000), gpu(1, "8.0", free=40000)), 1),
        ((gpu(0, "8.0", free=80000, busy=97), gpu(1, "8.0", free=40000)), 1),
        ((gpu(0, "9.0", free=80000), gpu(1, "9.0", free=70000, busy=3)), 0),
        # What no container can use is never taken while there is another.
        ((gpu(0, "8.0", free=80000, mig="Enabled"), gpu(1, "9.0", free=10)), 1),
        ((gpu(0, "8.0", free=80000, mode="Prohibited"), gpu(1, "9.0", free=10)), 1),
        ((gpu(0, "8.0", free=80000, mode="Exclusive_Process"), gpu(1, "9.0", free=10)), 0),
    ],
)
def test_of_several_gpus_the_one_that_suits_the_rows(gpus: tuple[HostGpu, ...], chosen: int) -> None:
    access = choose(facts(gpus=gpus), None, {"8.0"})
    assert access is not None
    assert access.gpu.index == chosen


MIXED = (gpu(0, "8.0", free=10), gpu(1, "9.0", free=20), gpu(2, "9.0", free=30))
ALIKE = tuple(replace(one, name="GPU", capability="9.0") for one in MIXED)


@pytest.mark.parametrize(
    ("gpus", "visible", "chosen"),
    [
        (ALIKE, None, 2),
        (ALIKE, "0", 0),
        (ALIKE, "0,1", 1),
        (ALIKE, " 1 , 0", 1),
        (ALIKE, "1,1", 1),
        (ALIKE, "0,-1,2", 0),  # what stands behind a word that names no GPU is hidden
        (ALIKE, "0,7,2", 0),
        (MIXED, "GPU-10000000", 1),
        (MIXED, "gpu-0,GPU-1", 1),
        (MIXED, "0,1,2", 2),  # all of them, in whatever order
        (ALIKE, "", None),
        (ALIKE, "-1", None),
        (ALIKE, "3", None),
        (ALIKE, "NoDevFiles", None),
        (ALIKE, "GPU-", None),  # the beginning of every one
        (ALIKE, "GPU-9,1", None),
        (ALIKE, "MIG-10000000-1111-2222-3333-444444444444", None),
        (MIXED, "7", None),
    ],
)
def test_a_gpu_is_taken_only_from_those_that_the_machine_says_are_ours(
    gpus: tuple[HostGpu, ...], visible: str | None, chosen: int | None
) -> None:
    here = facts(gpus=gpus, visible=visible, runtimes=("nvidia",))
    access = choose(here)
    assert (access.gpu.index if access else None) == chosen
    if access is None:
        assert why_none(here).startswith(f"CUDA_VISIBLE_DEVICES={visible!r} leaves none of this machine's GPUs (0 = ")
        with pytest.raises(UsageError, match="--gpu runtime: CUDA_VISIBLE_DEVICES="):
            choose(here, "runtime")
    else:
        assert access.among == ("" if visible is None else f"CUDA_VISIBLE_DEVICES={visible}")
        by_way = choose(here, "runtime")
        assert by_way is not None
        assert by_way.gpu.index == chosen
    named = choose(here, "1")  # a GPU that is named is meant
    assert named is not None
    assert (named.gpu.index, named.among) == (1, "")
    assert choose(here, "none") is None


def test_a_run_says_what_left_it_the_gpu_or_none() -> None:
    def noted(visible: str | None) -> str:
        here = facts(gpus=ALIKE, visible=visible, runtimes=("nvidia",))
        engine = SimpleNamespace(
            gpu_access=lambda force, capabilities: choose(here, force, capabilities),
            why_no_gpu=lambda: why_none(here),
        )
        lines: list[str] = []
        view = SimpleNamespace(note=lines.append)
        _level([], releases.load(), Settings(out=Path()), cast("Engine", engine), cast("View", view))
        return lines[0]

    assert noted("1").endswith(
        "(GPU-10000000), driver 580.1, by runtime; taken from what CUDA_VISIBLE_DEVICES=1 leaves"
    )
    assert noted(None).endswith("by runtime")
    assert noted("").startswith("CUDA_VISIBLE_DEVICES='' leaves none of this machine's GPUs (")
    assert ": level image; nothing that needs a GPU is asked" in noted("-1")


def test_numbers_that_may_mean_other_gpus_are_not_guessed_at() -> None:
    """CUDA puts the fastest GPU first: its 0 need not be the driver's."""
    here = facts(gpus=MIXED, visible="0", runtimes=("nvidia",))
    for force in (None, "runtime"):
        with pytest.raises(
            UsageError, match=r"=0: where GPUs are of several kinds.*PCI_BUS_ID, or choose one with --gpu"
        ):
            choose(here, force)
    ordered = choose(replace(here, pci_order=True))
    assert ordered is not None
    assert ordered.gpu.index == 0
    divided = replace(here, gpus=(*ALIKE[:2], replace(ALIKE[2], unusable="it is divided by MIG")))
    for pci_order in (False, True):
        with pytest.raises(UsageError, match="by UUID there, or choose one with --gpu"):
            choose(replace(divided, pci_order=pci_order))
    alone = facts(gpus=(gpu(0, "8.0", free=1, mig="Enabled"),), visible="0")
    assert choose(alone) is None
    assert why_none(alone) == "no way to GPU of 8.0: it is divided by MIG"


def test_what_this_machine_says_of_its_gpus_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("host_gpus", ALIKE), ("driver_files", {})):
        monkeypatch.setattr(gpu_facts, name, lambda value=value: value)
    engine = cast("APIClient", SimpleNamespace(info=dict))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    unset = gpu_facts.gather(engine, local=True)
    assert (unset.visible, unset.pci_order) == (None, False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    hidden = gpu_facts.gather(engine, local=True)
    assert (hidden.visible, hidden.pci_order) == ("", True)
    assert gpu_facts.gather(engine, local=False).visible is None


def test_a_gpu_that_is_divided_is_not_given_whole() -> None:
    divided = facts(gpus=(gpu(0, "8.0", free=80000, mig="Enabled"),))
    assert choose(divided, None, {"8.0"}) is None
    assert why_none(divided) == "no way to GPU of 8.0: it is divided by MIG"
    with pytest.raises(UsageError, match=r"that way: it is divided by MIG$"):
        choose(divided, "0")
    assert why_none(GpuFacts()) == "no NVIDIA GPU here"
    assert why_none(facts(device_nodes=())).startswith("no way to NVIDIA H100 80GB HBM3: runtime: the engine has no")


def test_plain_devices_bring_the_drivers_own_files_only() -> None:
    access = choose(facts(gpus=GPUS), "1")
    assert access is not None
    assert access.devices == ("/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
    assert dict(access.mounts) == {
        FILES["libcuda.so.1"]: "/usr/local/nvidia/lib64/libcuda.so.1",
        FILES["nvidia-smi"]: "/usr/bin/nvidia-smi",
    }
    assert access.library_path == "/usr/local/nvidia/lib64"
    assert access.device_requests == ()


def test_requests_name_one_gpu() -> None:
    runtime = choose(facts(runtimes=("nvidia",)))
    assert runtime is not None
    assert runtime.device_requests[0]["DeviceIDs"] == [GPUS[0].uuid]
    cdi = choose(facts(gpus=GPUS, cdi_devices=("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all")), "cdi")
    assert cdi is not None
    assert cdi.device_requests == ({"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=1"]},)


def test_driver_files_come_from_the_folder_of_libcuda_alone(tmp_path: Path) -> None:
    driver, other, compat = tmp_path / "driver", tmp_path / "other", tmp_path / "compat"
    for folder, names in (
        (driver, (*DRIVER_FILES, "libc.so.6", "libcudart.so.12")),
        (other, ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-nvvm.so.4")),
        (compat, ("libcuda.so.1", "libnvidia-ptxjitcompiler.so.1")),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    ldconfig = "".join(f"\tlibcuda.so.1 (libc6,x86-64) => {folder}/libcuda.so.1\n" for folder in (compat, driver))
    found = driver_files(ldconfig, (str(other),))
    assert {name for name in found if name != "nvidia-smi"} == set(DRIVER_FILES)
    assert found["libcuda.so.1"] == str(driver / "libcuda.so.1")
    assert driver_files("", (str(other),))["libcuda.so.1"] == str(other / "libcuda.so.1")
    assert driver_files("", (str(tmp_path / "none"),)) == {}


@pytest.mark.parametrize(
    "name",
    ["libnvidia-container.so.1", "libcudart.so.12", "libcublas.so.12", "libnvidia-glcore.so.580", "libnvJitLink.so.12"],
)
def test_no_library_of_a_toolkit_or_of_graphics_is_taken_for_the_drivers(name: str) -> None:
    assert not DRIVER_LIBRARY.match(name)


CDI_YAML = """\
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args:
    - nvidia-ctk
    hookName: createContainer
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""


def test_cdi_specifications_name_their_devices() -> None:
    assert cdi_names(CDI_YAML) == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
    assert cdi_names('{"kind": "nvidia.com/gpu", "devices": [{"name": "GPU-1"}]}') == ["nvidia.com/gpu=GPU-1"]
    assert cdi_names('{"kind": "vendor.com/net", "devices": [{"name": "x"}]}') == []
    assert cdi_names("kind: vendor.com/net\ndevices:\n- name: x\n") == []
