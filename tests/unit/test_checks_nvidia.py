"""What the driver's libraries say, asked of libraries that stand in for them, and whose libcuda it was."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from checks_package import family

nvidia, gpu = family("nvidia"), family("gpu")

# NVML's functions as nvml.h declares them, for one GPU that is called GPU-1.
NVML = """
#include <string.h>
typedef unsigned long long u64;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 6 ? "Not Found" : "Not Supported"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "535.54.03", length); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12020; return 0; }
static void *const gpu = (void *)7;
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) { *handle = gpu; return strcmp(uuid, "GPU-1") ? 6 : 0; }
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *rates) { rates[0] = 42; return handle == gpu ? 0 : 3; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, u64 *reasons) { *reasons = 0x4 | 0x20 | 0x40; return 0; }
int nvmlDeviceGetClockInfo(void *handle, unsigned type, unsigned *mhz) { *mhz = type == 1 ? 900 : 5; return 0; }
int nvmlDeviceGetMaxClockInfo(void *handle, unsigned type, unsigned *mhz) { *mhz = type == 1 ? 1980 : 5; return 0; }
"""
# A stub as CUDA toolkits bring it: every call answers CUDA_ERROR_STUB_LIBRARY.
STUB = """
int cuInit(unsigned flags) { return 34; }
int cuGetErrorString(int code, const char **text) { *text = "CUDA driver is a stub library"; return 0; }
"""
DRIVER = """
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 12010; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int length, int device) { name[0] = 'G'; name[1] = 0; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { for (int i = 0; i < 16; i++) uuid[i] = i; return 0; }
"""

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def compile_library(folder, name, source):
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / name), f"-Wl,-soname,{name}"],
        input=source, text=True, check=True,
    )  # fmt: skip
    return folder


def test_nvml_is_asked_by_its_own_calls(tmp_path, monkeypatch):
    folder = compile_library(tmp_path / "nvml", "libnvidia-ml.so.1", NVML)
    monkeypatch.setattr(nvidia, "NVML", str(folder / "libnvidia-ml.so.1"))
    assert nvidia.versions() == {"driver": "535.54.03", "cuda": "12.2"}
    assert nvidia.utilization("GPU-1") == 42
    # The power cap is ordinary, and heat is said once.
    assert nvidia.clocks("GPU-1") == nvidia.Clocks(900, 1980, ("it is too hot",))
    with pytest.raises(nvidia.DriverError, match=r"nvmlDeviceGetHandleByUUID: Not Found \(6\)"):
        nvidia.utilization("GPU-2")


def test_the_drivers_version_is_told_without_a_libcuda_that_works(tmp_path, monkeypatch):
    """NVML asks whatever libcuda the loader finds for CUDA's version: a stub fails it with 999, as on a real GPU."""
    stub = NVML.replace("{ *version = 12020; return 0; }", "{ return 999; }")
    folder = compile_library(tmp_path / "nvml", "libnvidia-ml.so.1", stub)
    monkeypatch.setattr(nvidia, "NVML", str(folder / "libnvidia-ml.so.1"))
    assert nvidia.versions() == {"driver": "535.54.03", "cuda": ""}


def test_a_driver_without_a_function_says_so(tmp_path, monkeypatch):
    old = NVML.replace("nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlSomethingElse")
    folder = compile_library(tmp_path / "nvml", "libnvidia-ml.so.1", old)
    monkeypatch.setattr(nvidia, "NVML", str(folder / "libnvidia-ml.so.1"))
    with pytest.raises(nvidia.DriverError, match="this driver has no such function"):
        nvidia.clocks("GPU-1")


def test_another_environment_is_asked_in_a_process_of_its_own(tmp_path):
    stub = compile_library(tmp_path / "stub", "libcuda.so.1", STUB)
    driver = compile_library(tmp_path / "driver", "libcuda.so.1", DRIVER)
    met = nvidia.probe_with({**os.environ, "LD_LIBRARY_PATH": f"{stub}:{driver}"})
    assert met == {
        "library": str(stub / "libcuda.so.1"),
        "devices": 0,
        "cuda": "",
        "refused": "cuInit: CUDA driver is a stub library (34)",
        "code": 34,
    }
    met = nvidia.probe_with({**os.environ, "LD_LIBRARY_PATH": f"{driver}:{stub}"})
    library = str(driver / "libcuda.so.1")
    assert met == {"library": library, "devices": 1, "cuda": "12.1", "refused": "", "code": 0}


def test_an_image_whose_own_libcuda_is_only_hidden_by_the_drivers_folder_is_found_out(tmp_path, monkeypatch):
    stub = compile_library(tmp_path / "stub", "libcuda.so.1", STUB)
    driver = compile_library(tmp_path / "driver", "libcuda.so.1", DRIVER)
    monkeypatch.setattr(nvidia, "is_of_the_image", lambda path: True)
    # The driver's folder comes last here: what the image names, or has in its ld.so.cache, would be met without it.
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{stub}:{driver}")
    found = gpu.shadowed_driver(str(driver))
    assert found == f"{stub}/libcuda.so.1: cuInit: CUDA driver is a stub library (34)"
    monkeypatch.setattr(nvidia, "is_of_the_image", lambda path: False)
    assert gpu.shadowed_driver(str(driver)) is None, "the host mounted it"
    monkeypatch.setattr(nvidia, "is_of_the_image", lambda path: True)
    compile_library(tmp_path / "stub", "libcuda.so.1", DRIVER)
    assert gpu.shadowed_driver(str(driver)) is None, "forward compatibility works"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    assert gpu.shadowed_driver(str(driver)) is None, "an ordinary image brings none"
    assert gpu.shadowed_driver(None) is None


def test_the_hosts_nvml_is_asked_and_not_a_stub_of_the_images(tmp_path, monkeypatch):
    """CUDA's stubs include one of NVML: the image's ld.so.cache may name that before what the host mounted."""
    mountinfo = tmp_path / "mountinfo"
    folder = "/usr/lib/x86_64-linux-gnu"
    mountinfo.write_text(
        "22 1 0:20 / / ro - overlay overlay rw\n"
        f"23 22 0:21 /x {folder}/libnvidia-ml-other.so.1 ro - ext4 /dev/vda rw\n"
        f"24 22 0:21 /y {folder}/libnvidia-ml.so.580.159.04 ro - ext4 /dev/vda rw\n"
    )
    assert nvidia.mounted("libnvidia-ml.so.1", str(mountinfo)) == f"{folder}/libnvidia-ml.so.580.159.04"
    assert nvidia.mounted("libcuda.so.1", str(mountinfo)) is None
    host = compile_library(tmp_path / "host", "libnvidia-ml.so.1", NVML)
    monkeypatch.setattr(nvidia, "NVML", "libnvidia-ml.so.1")
    monkeypatch.setattr(nvidia, "mounted", lambda library: str(host / library))
    assert nvidia.versions()["driver"] == "535.54.03"


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/usr/local/cuda/lib64/stubs/libcuda.so", True),
        ("/usr/local/nvidia/lib64/libcuda.so.1", False),
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04", False),
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04.mine", True),
        ("/opt/driver/deep/libcuda.so.1", False),
    ],
)
def test_what_the_host_mounted_is_told_from_the_images_own(tmp_path, path, own):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "22 1 0:20 / / ro,relatime - overlay overlay rw\n"
        "23 22 0:21 /x /usr/local/nvidia/lib64/libcuda.so.1 ro - ext4 /dev/vda rw\n"
        "24 22 0:21 /y /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04 ro - ext4 /dev/vda rw\n"
        "25 22 0:21 /z /opt/driver ro - ext4 /dev/vda rw\n"
    )
    assert nvidia.is_of_the_image(path, str(mountinfo)) is own
