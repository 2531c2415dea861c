"""Decides how a container gets at an NVIDIA GPU: NVIDIA's runtime, CDI, or plain devices with the driver's own files.

`choose` is a pure function of the facts that `gpu_facts.gather` collects.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from assay.errors import UsageError

Mode = Literal["runtime", "cdi", "devices"]
MODES: tuple[Mode, ...] = ("runtime", "cdi", "devices")
CDI_KIND = "nvidia.com/gpu"
# Where the driver's files appear in the container in mode `devices`: where NVIDIA's own images expect them.
DRIVER_FOLDER = "/usr/local/nvidia"
LIBRARY_FOLDER = f"{DRIVER_FOLDER}/lib64"
VISIBLE = "CUDA_VISIBLE_DEVICES"
MIG = "it is divided by MIG"
FREE_PERCENT = 10
"""A GPU that nobody uses is 0 % busy; a display or a monitor's own queries make it a few."""


@dataclass(frozen=True, kw_only=True)
class HostGpu:
    """A GPU of this machine. Memory in bytes; minor: the number in /dev/nvidiaN, which need not equal the index.

    busy_percent: share of the last moment in which it had work. unusable: why no container can use it whole (divided by
    MIG, compute mode `Prohibited`); empty for nothing.
    """

    index: int
    uuid: str
    name: str
    driver: str
    memory_bytes: int = 0
    free_bytes: int = 0
    capability: str = ""
    minor: int | None = None
    busy_percent: int = 0
    unusable: str = ""


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What this machine and its engine offer.

    gpus: as the driver lists them.
    runtimes: names in the engine's `Runtimes`; `nvidia` when NVIDIA's runtime is installed there.
    hook: NVIDIA's container hook is on the PATH, which the engine uses for `--gpus` without a named runtime.
    cdi_devices: full CDI names, `nvidia.com/gpu=0`; empty when the engine has CDI switched off or knows none.
    device_nodes: existing /dev/nvidia* character devices.
    driver_files: the driver's own libraries by file name, and `nvidia-smi`, to the file on this machine.
    visible: this machine's CUDA_VISIBLE_DEVICES, by which a batch system says which GPUs a job may use; None where it
    is not set. pci_order: CUDA_DEVICE_ORDER is PCI_BUS_ID: numbers in `visible` count GPUs as the driver does.
    """

    gpus: tuple[HostGpu, ...] = ()
    runtimes: tuple[str, ...] = ()
    hook: bool = False
    cdi_devices: tuple[str, ...] = ()
    device_nodes: tuple[str, ...] = ()
    driver_files: Mapping[str, str] = field(default_factory=dict)
    visible: str | None = None
    pci_order: bool = False


@dataclass(frozen=True, kw_only=True)
class GpuAccess:
    """How a container gets one GPU.

    device_requests: for the engine's API (modes `runtime` and `cdi`).
    devices, mounts, library_path: device nodes, read-only (source, target) files, and the folder to append to the
    image's LD_LIBRARY_PATH (mode `devices`). among: what of this machine's environment limited the choice, for people.
    """

    mode: Mode
    gpu: HostGpu
    device_requests: tuple[Mapping[str, Any], ...] = ()
    devices: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    library_path: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    among: str = ""

    @property
    def name(self) -> str:
        """The GPU's name, as the driver tells it."""
        return self.gpu.name

    @property
    def uuid(self) -> str:
        """The GPU's UUID, `GPU-...`."""
        return self.gpu.uuid

    @property
    def driver(self) -> str:
        """The version of the driver."""
        return self.gpu.driver

    @property
    def description(self) -> str:
        """One line for people and for the certificate."""
        return f"{self.gpu.name} ({self.gpu.uuid}), driver {self.gpu.driver}, by {self.mode}"


def choose(facts: GpuFacts, force: str | None = None, capabilities: Collection[str] = ()) -> GpuAccess | None:
    """Choose a GPU and the way to it. None when there is no GPU, or no way to it, and none was asked for.

    force: `runtime`, `cdi` or `devices` for the way, `none` for no GPU, or the index or UUID of the GPU; None finds
    both. capabilities: those of the GPUs that the rows are for, such as `8.0`. Without an index or UUID, a GPU is
    taken that CUDA_VISIBLE_DEVICES leaves and that can be used, of these capabilities if there is one, without other
    work if there is one, with the most free memory.
    Raises UsageError when what is forced does not exist here, or nobody can say which GPUs CUDA_VISIBLE_DEVICES means.
    """
    if force == "none":
        return None
    mode = next((mode for mode in MODES if mode == force), None)
    if not facts.gpus:
        if force is not None:
            raise UsageError(f"--gpu {force}: this machine has no NVIDIA GPU, or its driver is not loaded")
        return None
    by_name = force is not None and mode is None
    allowed = facts.gpus if by_name else _visible(facts)
    if not allowed:
        if force is not None:
            raise UsageError(f"--gpu {force}: {_hidden(facts)}")
        return None
    gpu = _gpu(allowed, force if by_name else None, capabilities)
    ways = _ways(gpu, facts, MODES if mode is None else (mode,))
    for way, missing in ways.items():
        if not missing:
            among = "" if by_name or facts.visible is None else f"{VISIBLE}={facts.visible}"
            return replace(_access(way, gpu, facts), among=among)
    if force is None:
        return None
    raise UsageError(f"--gpu {force}: no container can get at {gpu.name} ({gpu.uuid}) that way: {_in_words(ways)}")


def why_none(facts: GpuFacts) -> str:
    """Return why `choose` finds no GPU without being told one: there is none, or no way to it."""
    if not facts.gpus:
        return "no NVIDIA GPU here"
    allowed = _visible(facts)
    if not allowed:
        return _hidden(facts)
    gpu = _gpu(allowed, None, ())
    return f"no way to {gpu.name}: {_in_words(_ways(gpu, facts, MODES))}"


def _visible(facts: GpuFacts) -> tuple[HostGpu, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves, as CUDA reads it: up to the first word that names no GPU.

    Its numbers are CUDA's, which puts the fastest GPU first and counts GPUs of one kind by their place, as the driver
    does. Source: CUDA Programming Guide, "CUDA Environment Variables".
    Raises UsageError where such a number may be another GPU than the driver's.
    """
    if facts.visible is None:
        return facts.gpus
    found: dict[HostGpu, str] = {}
    for word in (word.strip().lower() for word in facts.visible.split(",")):
        named = [
            gpu
            for gpu in facts.gpus
            if str(gpu.index) == word or (word.startswith("gpu-") and gpu.uuid.lower().startswith(word))
        ]
        if len(named) != 1:
            break
        found.setdefault(named[0], word)
    counted_alike = facts.pci_order or len({gpu.name for gpu in facts.gpus}) == 1
    divided = len(facts.gpus) > 1 and any(gpu.unusable == MIG for gpu in facts.gpus)
    in_doubt = any(word.isdecimal() for word in found.values()) and (divided or not counted_alike)
    if in_doubt and len(found) < len(facts.gpus):
        remedy = "" if divided else "set CUDA_DEVICE_ORDER=PCI_BUS_ID, "
        raise UsageError(
            f"{VISIBLE}={facts.visible}: where GPUs are of several kinds, or divided by MIG, CUDA does not count them "
            f"as their driver does. Name them by UUID there, {remedy}or choose one with --gpu: {_listed(facts.gpus)}"
        )
    return tuple(found)


def _hidden(facts: GpuFacts) -> str:
    return f"{VISIBLE}={facts.visible!r} leaves none of this machine's GPUs ({_listed(facts.gpus)})"


def _listed(gpus: Sequence[HostGpu]) -> str:
    return ", ".join(f"{gpu.index} = {gpu.uuid} ({gpu.name})" for gpu in gpus)


def _ways(gpu: HostGpu, facts: GpuFacts, modes: Sequence[Mode]) -> dict[Mode, str]:
    """Return what each way to a GPU lacks; empty for one that is open."""
    return {way: gpu.unusable or _missing(way, gpu, facts) for way in modes}


def _in_words(ways: Mapping[Mode, str]) -> str:
    if len(set(ways.values())) == 1:  # MIG, say
        return next(iter(ways.values()))
    return "; ".join(f"{way}: {missing}" for way, missing in ways.items())


def _gpu(gpus: Sequence[HostGpu], wanted: str | None, capabilities: Collection[str]) -> HostGpu:
    if wanted is None:

        def worth(gpu: HostGpu) -> tuple[bool, bool, bool, int, int]:
            fits = gpu.capability in capabilities
            return not gpu.unusable, fits, gpu.busy_percent <= FREE_PERCENT, gpu.free_bytes, -gpu.index

        return max(gpus, key=worth)
    for gpu in gpus:
        if wanted == str(gpu.index) or (len(wanted) >= 8 and gpu.uuid.lower().startswith(wanted.lower())):
            return gpu
    known = _listed(gpus)
    raise UsageError(f"--gpu {wanted}: not one of {', '.join(MODES)}, none, or a GPU of this machine ({known})")


def _missing(mode: Mode, gpu: HostGpu, facts: GpuFacts) -> str:
    """Say what a way lacks; empty when it is open."""
    if mode == "runtime":
        return "" if "nvidia" in facts.runtimes or facts.hook else "the engine has no NVIDIA runtime"
    if mode == "cdi":
        return "" if _cdi_name(gpu, facts) else f"the engine knows no CDI device {CDI_KIND}={gpu.index}"
    if not {f"/dev/nvidia{gpu.minor}", "/dev/nvidiactl", "/dev/nvidia-uvm"} <= set(facts.device_nodes):
        return f"/dev/nvidia{gpu.minor}, /dev/nvidiactl and /dev/nvidia-uvm are not all there"
    return "" if "libcuda.so.1" in facts.driver_files else "the driver's libcuda.so.1 was not found"


def _cdi_name(gpu: HostGpu, facts: GpuFacts) -> str | None:
    names = (f"{CDI_KIND}={gpu.uuid}", f"{CDI_KIND}={gpu.index}")
    return next((name for name in names if name in facts.cdi_devices), None)


def _access(mode: Mode, gpu: HostGpu, facts: GpuFacts) -> GpuAccess:
    if mode == "runtime":
        request = {
            "Driver": "nvidia",
            "DeviceIDs": [gpu.uuid],
            "Capabilities": [["gpu", "compute", "utility"]],
        }
        # A driver that is too old is for `driver.version` to report: NVIDIA's hook would stop the container instead.
        environment = {"NVIDIA_DISABLE_REQUIRE": "1"}
        return GpuAccess(mode=mode, gpu=gpu, device_requests=(request,), environment=environment)
    # Where NVIDIA's runtime is the engine's default, an image's own NVIDIA_VISIBLE_DEVICES would add other GPUs.
    alone = {"NVIDIA_VISIBLE_DEVICES": "void"}
    if mode == "cdi":
        request = {"Driver": "cdi", "DeviceIDs": [_cdi_name(gpu, facts) or ""]}
        return GpuAccess(mode=mode, gpu=gpu, device_requests=(request,), environment=alone)
    common = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
    nodes = [f"/dev/nvidia{gpu.minor}", *(node for node in common if node in facts.device_nodes)]
    mounts = [
        (source, f"/usr/bin/{name}" if name == "nvidia-smi" else f"{LIBRARY_FOLDER}/{name}")
        for name, source in sorted(facts.driver_files.items())
    ]
    return GpuAccess(
        mode=mode, gpu=gpu, devices=tuple(nodes), mounts=tuple(mounts), library_path=LIBRARY_FOLDER, environment=alone
    )
