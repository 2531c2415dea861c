"""A container really gets at the GPU, in every way that this machine offers."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.engine import Engine
from assay.engine.gpu import MODES
from assay.engine.gpu_facts import driver_files
from assay.errors import UsageError

pytestmark = [pytest.mark.gpu, pytest.mark.engine]

IMAGE = "assay-test/python:latest"
# Through the driver's own library only: cuInit, the device, and 64 MiB of memory, which needs /dev/nvidia-uvm.
PROBE = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    assert code == 0, f"{name} answered {code}"
call("cuInit", 0)
count, device, context, pointer = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
call("cuDeviceGetCount", ctypes.byref(count))
call("cuDeviceGet", ctypes.byref(device), 0)
uuid = (ctypes.c_ubyte * 16)()
call("cuDeviceGetUuid", uuid, device)
call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(64 << 20))
print("devices", count.value)
print("uuid", bytes(uuid).hex())
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine.connect()
    if not engine.host_gpus():
        pytest.skip("no NVIDIA GPU here")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """An image with this machine's system Python and its libraries."""
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    assert found, "needs a python3 of the system"
    python = Path(found).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}" if python.name == "python3" else python.name
    library = python.parent.parent / "lib" / version
    # libcuda comes with the driver; of the C library it needs more than Python does.
    cuda = [path for name, path in driver_files().items() if name == "libcuda.so.1"]
    listed = subprocess.run(
        ["ldd", python, *library.glob("lib-dynload/_ctypes*.so"), "/bin/cat", *cuda],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(python, "usr/bin/python3")
        archive.add(library, f"usr/lib/{version}")
        for path in sorted(set(re.findall(r"(/\S+) \(0x", listed))):
            archive.add(Path(path).resolve(), path.lstrip("/"))
    stream.seek(0)
    engine.import_tar(stream, IMAGE)
    return IMAGE


@pytest.mark.parametrize("mode", [None, *MODES])
def test_the_chosen_gpu_and_no_other_is_seen(engine: Engine, image: str, mode: str | None) -> None:
    try:
        access = engine.gpu_access(mode)
    except UsageError as error:
        pytest.skip(str(error))
    assert access is not None
    result = engine.run(image, ["python3", "-c", PROBE], gpu=access, timeout=120)
    assert result.exit_code == 0, result.stderr_tail
    assert result.stdout_tail == ("devices 1", f"uuid {access.uuid.removeprefix('GPU-').replace('-', '')}")


def test_each_gpu_of_this_machine_can_be_the_one(engine: Engine, image: str) -> None:
    gpus = engine.host_gpus()
    if len(gpus) < 2:
        pytest.skip("one GPU here")
    for gpu in gpus:
        access = engine.gpu_access(str(gpu.index))
        assert access is not None
        assert access.uuid == gpu.uuid
        result = engine.run(image, ["python3", "-c", PROBE], gpu=access, timeout=120)
        assert result.exit_code == 0, result.stderr_tail
        assert result.stdout_tail == ("devices 1", f"uuid {gpu.uuid.removeprefix('GPU-').replace('-', '')}")


def test_a_container_without_access_sees_none(engine: Engine, image: str) -> None:
    result = engine.run(image, ["python3", "-c", "import ctypes; ctypes.CDLL('libcuda.so.1')"], timeout=60)
    assert result.exit_code != 0
    assert any("libcuda.so.1" in line for line in result.stderr_tail)
