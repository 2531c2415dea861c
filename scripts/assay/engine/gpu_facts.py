"""Collects what `gpu.choose` decides on: GPUs, the engine's abilities, device nodes, the driver's files."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import requests
from docker.api import APIClient
from docker.errors import DockerException

from assay.engine.gpu import CDI_KIND, MIG, VISIBLE, GpuFacts, HostGpu
from assay.engine.stream import engine_error

MIB = 1 << 20
# Places of the driver's user-space part beyond ldconfig's: NVIDIA's container images and Kubernetes device plug-ins.
DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/wsl/lib")
SMI_FOLDERS = ("/usr/local/nvidia/bin", "/usr/lib/wsl/lib")
# The driver's own libraries, without those for graphics, which have no use in these images, and without NVIDIA's
# container toolkit, which lies beside them.
DRIVER_LIBRARY = re.compile(
    r"^lib(cuda|cudadebugger|nvidia-(?!api|container|egl|encode|fbc|gl|gtk|ngx|opticalflow|present|rtcore|tls|vk|wayland)"
    r"[-\w]+)\.so(\.\d+)*$"
)
QUERY = (
    "index", "uuid", "name", "driver_version", "memory.total", "memory.free",
    "compute_cap", "utilization.gpu", "compute_mode", "mig.mode.current",
)  # fmt: skip
OLDEST = 6
"""How many of these every nvidia-smi knows: one that does not know a field answers none of them."""
SMI_TIMEOUT_SECONDS = 60.0
PROHIBITED = {"Prohibited": "its compute mode is Prohibited"}


def gather(api: APIClient, *, local: bool) -> GpuFacts:
    """Collect the facts of this machine and of the engine: none when that is on another machine."""
    if not local:
        return GpuFacts()
    try:
        info: dict[str, Any] = api.info()
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, "being asked what it offers") from error
    return GpuFacts(
        gpus=host_gpus(),
        runtimes=tuple(info.get("Runtimes") or ()),
        hook=shutil.which("nvidia-container-runtime-hook") is not None,
        cdi_devices=tuple(sorted(_cdi_devices(info))),
        device_nodes=tuple(_device_nodes(Path("/dev"))),
        driver_files=driver_files(),
        visible=os.environ.get(VISIBLE),
        pci_order=os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID",
    )


def host_gpus() -> tuple[HostGpu, ...]:
    """Return the GPUs that nvidia-smi lists, none when there is no driver or it does not answer."""
    smi = _smi()
    if smi is None:
        return ()
    try:
        answer = _ask_smi(smi, QUERY) or _ask_smi(smi, QUERY[:OLDEST])
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_smi(answer, _minors(Path("/proc/driver/nvidia/gpus")))


def _ask_smi(smi: str, fields: Sequence[str]) -> str:
    """Return nvidia-smi's answer, empty where it refuses: it does not know a field, or there is no driver.

    Raises OSError or TimeoutExpired where it cannot be asked.
    """
    libraries = os.pathsep.join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), *DRIVER_FOLDERS]))
    answer = subprocess.run(
        [smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=False,
        timeout=SMI_TIMEOUT_SECONDS,
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
    )
    return answer.stdout if answer.returncode == 0 else ""


def parse_smi(csv: str, minors: dict[str, int]) -> tuple[HostGpu, ...]:
    """Read nvidia-smi's answer to QUERY or its beginning. minors: /dev/nvidiaN by UUID; else the index."""
    gpus = []
    for line in csv.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) not in (OLDEST, len(QUERY)):
            continue
        index, uuid, name, driver, total, free, capability, busy, mode, mig = (values + [""] * 4)[: len(QUERY)]
        gpus.append(
            HostGpu(
                index=int(index),
                uuid=uuid,
                name=name,
                driver=driver,
                memory_bytes=_mebibytes(total),
                free_bytes=_mebibytes(free),
                capability=capability if re.fullmatch(r"\d+\.\d+", capability) else "",
                minor=minors.get(uuid, int(index)),
                busy_percent=int(busy) if busy.isdigit() else 0,
                unusable=MIG if mig == "Enabled" else PROHIBITED.get(mode, ""),
            )
        )
    return tuple(gpus)


def driver_files(ldconfig: str | None = None, folders: tuple[str, ...] = DRIVER_FOLDERS) -> dict[str, str]:
    """Return the driver's compute libraries and nvidia-smi, file name to path; empty when there is no driver.

    All come from one folder, so that no second driver's files are mixed in: the first that holds libcuda.so.1 and
    libnvidia-ml.so.1. A folder for forward compatibility (`cuda-compat`) has no NVML.
    ldconfig: output of `ldconfig -p`; read from this machine by default.
    """
    cached = re.findall(r"=> (\S+)/libcuda\.so\.1$", _ldconfig() if ldconfig is None else ldconfig, re.MULTILINE)
    for folder in map(Path, (*cached, *folders)):
        if not all((folder / name).exists() for name in ("libcuda.so.1", "libnvidia-ml.so.1")):
            continue
        files = {path.name: str(path) for path in sorted(folder.iterdir()) if DRIVER_LIBRARY.match(path.name)}
        if smi := _smi():
            files["nvidia-smi"] = smi
        return files
    return {}


def _ldconfig() -> str:
    tool = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        return ""
    # ldconfig lists 64-bit libraries of this machine first; 32-bit ones carry another mark.
    answer = subprocess.run([tool, "-p"], capture_output=True, text=True, check=False)
    return "\n".join(line for line in answer.stdout.splitlines() if "64" in line.partition("=>")[0])


def _smi() -> str | None:
    return shutil.which("nvidia-smi", path=os.pathsep.join((os.environ.get("PATH", ""), *SMI_FOLDERS)))


def _minors(folder: Path) -> dict[str, int]:
    """Return /dev/nvidiaN numbers by UUID, as the kernel module tells them."""
    minors = {}
    for information in folder.glob("*/information"):
        text = information.read_text(encoding="utf-8", errors="replace")
        uuid = re.search(r"^GPU UUID:\s*(\S+)", text, re.MULTILINE)
        minor = re.search(r"^Device Minor:\s*(\d+)", text, re.MULTILINE)
        if uuid and minor:
            minors[uuid[1]] = int(minor[1])
    return minors


def _device_nodes(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("nvidia*")):
        if stat.S_ISCHR(path.stat().st_mode):
            yield str(path)


def _cdi_devices(info: dict[str, Any]) -> Iterator[str]:
    """Yield the CDI names of NVIDIA GPUs: from the engine (28.3 and newer), and from its specification folders.

    Engines from 25 on name these folders in `CDISpecDirs`, and none there when CDI is switched off.
    """
    for device in info.get("DiscoveredDevices") or ():
        if device.get("Source") == "cdi" and str(device.get("ID", "")).startswith(f"{CDI_KIND}="):
            yield device["ID"]
    for folder in info.get("CDISpecDirs") or ():
        for path in sorted(Path(folder).glob("*.yaml")) + sorted(Path(folder).glob("*.json")):
            try:
                yield from cdi_names(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError):
                continue


def cdi_names(specification: str) -> list[str]:
    """Return the devices' full names in a CDI specification for NVIDIA GPUs, in JSON or in nvidia-ctk's YAML."""
    try:
        raw = json.loads(specification)
    except ValueError:
        kind = re.search(r"^kind:\s*[\"']?([\w./-]+)", specification, re.MULTILINE)
        # nvidia-ctk's YAML: a list item `name:` of its own per device; edits below have no `name` in column 0 to 4.
        names = re.findall(r"^\s{0,4}(?:-\s+)?name:\s*[\"']?([\w.:-]+)", specification, re.MULTILINE)
        return [f"{CDI_KIND}={name}" for name in names] if kind and kind[1] == CDI_KIND else []
    if not isinstance(raw, dict) or raw.get("kind") != CDI_KIND:
        return []
    return [f"{CDI_KIND}={device['name']}" for device in raw.get("devices") or ()]


def _mebibytes(value: str) -> int:
    return int(value) * MIB if value.isdigit() else 0
