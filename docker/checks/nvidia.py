"""What the host's driver says, asked of its own libraries through ctypes: NVML and CUDA's driver API.

`nvidia-ml-py` makes the same calls in the same way, but no image is certain to hold it, and putting it there for the
checks' sake would change what is certified. Standard library only and without relative imports: `probe` is run from
this file by an interpreter of its own, too.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NVML = "libnvidia-ml.so.1"
LIBCUDA = "libcuda.so.1"
LIBRARY_PATH = "LD_LIBRARY_PATH"
VISIBLE = "CUDA_VISIBLE_DEVICES"
PROBE_SECONDS = 60.0

# Kinds of clocks, and reasons to hold them down that are no part of ordinary work: nvml.h, nvmlClockType_t and
# nvmlClocksThrottleReason*. The power cap (0x4) is ordinary: a large matrix product runs into it on most GPUs.
NVML_CLOCK_SM = 1
HELD_DOWN = {
    0x2: "its application clocks are set low",
    0x8: "the hardware slows it down",
    0x10: "it follows another GPU's clocks",
    0x20: "it is too hot",
    0x40: "it is too hot",
    0x80: "its power supply slows it down",
}


class DriverError(RuntimeError):
    """A call into the driver's libraries did not succeed. `code` is the library's own."""

    def __init__(self, call: str, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"{call}: {text} ({code})")


class Nvml:
    """NVML, for as long as `nvml()` is open."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def call(self, name: str, *arguments: Any) -> None:
        """Call one function. Raises DriverError when it does not succeed, or when this driver does not have it."""
        try:
            code = getattr(self._library, name)(*arguments)
        except AttributeError:
            raise DriverError(name, -1, "this driver has no such function") from None
        if code:
            raise DriverError(name, code, self._library.nvmlErrorString(code).decode())

    def handle(self, uuid: str) -> ctypes.c_void_p:
        """Return the GPU with a UUID."""
        handle = ctypes.c_void_p()
        self.call("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(handle))
        return handle

    def number(self, name: str, *arguments: Any) -> int:
        """Return what a function of NVML writes to its last argument, one unsigned number."""
        value = ctypes.c_uint()
        self.call(name, *arguments, ctypes.byref(value))
        return value.value


@contextmanager
def nvml() -> Iterator[Nvml]:
    """Yield NVML: the host's own file where it was mounted as one, whatever library of that name the image brings.

    Raises OSError without the library, DriverError when it refuses.
    """
    library = ctypes.CDLL(mounted(NVML) or NVML)
    library.nvmlErrorString.restype = ctypes.c_char_p
    opened = Nvml(library)
    opened.call("nvmlInit_v2")
    try:
        yield opened
    finally:
        library.nvmlShutdown()


def versions() -> dict[str, str]:
    """Return the versions of the driver (`driver`) and of the newest CUDA that it serves (`cuda`).

    The second is empty where NVML cannot tell: it asks the libcuda that the loader finds, which may be the image's own.
    Raises OSError without NVML's library, DriverError when NVML refuses.
    """
    with nvml() as library:
        text = ctypes.create_string_buffer(96)
        library.call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(len(text)))
        cuda = ctypes.c_int()
        try:
            library.call("nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(cuda))
        except DriverError:
            return {"driver": text.value.decode(), "cuda": ""}
    return {"driver": text.value.decode(), "cuda": cuda_version(cuda.value)}


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


def utilization(uuid: str) -> int:
    """Return the share of the last moment (up to a second) in which the GPU had work, in percent.

    Raises OSError without NVML's library, DriverError where it does not tell, as for a slice of a GPU.
    """
    with nvml() as library:
        rates = _Utilization()
        library.call("nvmlDeviceGetUtilizationRates", library.handle(uuid), ctypes.byref(rates))
    return int(rates.gpu)


@dataclass(frozen=True)
class Clocks:
    """How fast the GPU runs now: its clock and its highest one, in MHz, and what holds it down (nothing: no one)."""

    sm_mhz: int
    max_sm_mhz: int
    held_down: tuple[str, ...]


def clocks(uuid: str) -> Clocks:
    """Read the GPU's clocks. Raises as `utilization` does."""
    with nvml() as library:
        handle = library.handle(uuid)
        reasons = ctypes.c_ulonglong()
        library.call("nvmlDeviceGetCurrentClocksThrottleReasons", handle, ctypes.byref(reasons))
        return Clocks(
            library.number("nvmlDeviceGetClockInfo", handle, NVML_CLOCK_SM),
            library.number("nvmlDeviceGetMaxClockInfo", handle, NVML_CLOCK_SM),
            tuple(dict.fromkeys(text for bit, text in HELD_DOWN.items() if reasons.value & bit)),
        )


def cuda_devices() -> list[dict[str, str]]:
    """Return name and UUID of every GPU that CUDA shows to this process.

    Raises OSError without the driver's library, DriverError when it refuses, also with CUDA_ERROR_NO_DEVICE.
    """
    cuda = ctypes.CDLL(LIBCUDA)

    def call(name: str, *arguments: Any) -> None:
        code = getattr(cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            cuda.cuGetErrorString(code, ctypes.byref(text))
            raise DriverError(name, code, (text.value or b"unknown error").decode())

    call("cuInit", 0)
    count = ctypes.c_int()
    call("cuDeviceGetCount", ctypes.byref(count))
    devices = []
    for index in range(count.value):
        name, uuid = ctypes.create_string_buffer(128), (ctypes.c_ubyte * 16)()
        call("cuDeviceGetName", name, len(name), index)
        call("cuDeviceGetUuid", uuid, index)
        devices.append({"name": name.value.decode(), "uuid": format_uuid(bytes(uuid))})
    return devices


def cuda_served() -> str:
    """Return the newest CUDA that the libcuda which the loader finds serves, `12.1`. Raises as `cuda_devices` does."""
    version = ctypes.c_int()
    code = ctypes.CDLL(LIBCUDA).cuDriverGetVersion(ctypes.byref(version))
    if code:
        raise DriverError("cuDriverGetVersion", code, "no version")
    return cuda_version(version.value)


def cuda_version(number: int) -> str:
    """Return CUDA's number of a version (1000 x major + 10 x minor) as `12.1`."""
    return f"{number // 1000}.{number % 1000 // 10}"


def format_uuid(raw: bytes) -> str:
    """Return 16 bytes as NVML and nvidia-smi write them: `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`."""
    text = raw.hex()
    return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def probe() -> dict[str, Any]:
    """Return what a process of this environment meets.

    `library`: the libcuda that was loaded, None where there is none. `devices`: how many GPUs CUDA shows. `cuda`: the
    newest CUDA that it serves, `12.1`. `refused`: what it answered instead, with its `code`; empty and 0 when it
    answered well.
    """
    met: dict[str, Any] = {"library": None, "devices": 0, "cuda": "", "refused": "", "code": 0}
    try:
        met.update(devices=len(cuda_devices()), cuda=cuda_served())
    except OSError:
        return {**met, "refused": f"no {LIBCUDA}"}
    except DriverError as error:
        met.update(refused=str(error), code=error.code)
    return {**met, "library": loaded_libcuda()}


def probe_with(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what `probe` finds in a fresh process with that environment. Raises OSError where it gives no answer."""
    code = f"import json, runpy; print(json.dumps(runpy.run_path({__file__!r})['probe']()))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=dict(environment), capture_output=True, text=True,
            timeout=PROBE_SECONDS, check=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise OSError(f"asking for the GPU in another environment: {error}") from error
    return found


def seeing(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that hides no GPU, where whether the image hides one is not the question."""
    return {name: value for name, value in environment.items() if name != VISIBLE}


def environment_without(folder: str) -> dict[str, str]:
    """Return this process's environment without a folder on LD_LIBRARY_PATH, such as that of the driver's files."""
    environment = dict(os.environ)
    parts = [part for part in environment.pop(LIBRARY_PATH, "").split(":") if part != folder]
    return {**environment, LIBRARY_PATH: ":".join(parts)} if any(parts) else environment


def loaded_libcuda(maps: str = "/proc/self/maps") -> str | None:
    """Return the file of the libcuda that this process has loaded."""
    with Path(maps).open(encoding="utf-8", errors="surrogateescape") as file:
        files = [line.split(maxsplit=5)[5].rstrip("\n") for line in file if "/libcuda.so" in line]
    return files[0] if files else None


def is_of_the_image(path: str, mountinfo: str = "/proc/self/mountinfo") -> bool:
    """Say whether a file lies in the container's own root file system, and is not one that the host mounted into it."""
    real = os.path.realpath(path)
    points = mount_points(mountinfo)
    return max((point for point in points if f"{real}/".startswith(f"{point.rstrip('/')}/")), key=len) == "/"


def mounted(library: str, mountinfo: str = "/proc/self/mountinfo") -> str | None:
    """Return where a library (`libnvidia-ml.so.1`, or with the driver's full version) was mounted as a file of its own.

    NVIDIA's runtime and CDI mount the driver's files one by one; None where a whole folder was mounted.
    """
    stem = library.rpartition(".")[0]
    return next((point for point in mount_points(mountinfo) if Path(point).name.startswith(f"{stem}.")), None)


def mount_points(mountinfo: str) -> list[str]:
    """Return where this process's file systems and files are mounted (proc(5), fifth field)."""
    lines = Path(mountinfo).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [line.split()[4] for line in lines]
