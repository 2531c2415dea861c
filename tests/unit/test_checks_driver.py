"""Whether the host's driver suits a release, by itself or by forward compatibility."""

from __future__ import annotations

import pytest
from checks_package import family
from gpu_expectation import CUDA_121, expectation

driver, nvidia = family("driver"), family("nvidia")


@pytest.mark.parametrize(
    ("found", "support"),
    [
        ("580.159.04", "shipped-or-newer"),
        ("530.30.02", "shipped-or-newer"),
        ("525.147.05", "minor-version"),
        ("525.60.13", "minor-version"),
        ("525.60.11", "too-old"),
        ("470.256.02", "too-old"),
    ],
)
def test_driver_is_placed_in_the_release_table(found, support):
    assert driver.driver_support(found, **CUDA_121) == support


def test_a_branch_alone_is_a_minimum():
    assert driver.driver_support("580.65.06", shipped="580.95.05", minimum="580") == "minor-version"
    assert driver.driver_support("579.99.99", shipped="580.95.05", minimum="580") == "too-old"


def test_a_version_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not a driver version: 'N/A'"):
        driver.version("N/A")


HOSTS = "/usr/lib/x86_64-linux-gnu/libcuda.so.470.82.01"
COMPAT = "/usr/local/cuda-12.1/compat/libcuda.so.530.30.02"


def met(library=COMPAT, *, cuda="12.1", code=0, devices=1):
    """Return what `nvidia.probe` finds of a libcuda that answers with a code."""
    refused = f"cuInit: no ({code})" if code else ""
    return {
        "library": library, "devices": 0 if code else devices, "cuda": "" if code else cuda, "refused": refused,
        "code": code,
    }  # fmt: skip


@pytest.fixture
def old_driver(monkeypatch):
    """`driver.version` on a host whose driver is too old for CUDA 12.1, for what a process there meets."""
    monkeypatch.setattr(nvidia, "versions", lambda: {"driver": "470.82.01", "cuda": "11.4"})

    def ask(found, without_the_folder=None):
        folder = "/opt/driver" if without_the_folder else None

        def probe_with(environment):
            assert "CUDA_VISIBLE_DEVICES" not in environment
            return without_the_folder if folder and folder not in environment["LD_LIBRARY_PATH"] else found

        monkeypatch.setattr(nvidia, "probe_with", probe_with)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/cuda/lib64:/opt/driver")
        return driver.driver_version(expectation(gpu={"uuid": "GPU-1", "library_path": folder}))

    return ask


@pytest.mark.parametrize(
    "found",
    [
        met(),
        met("/usr/lib/x86_64-linux-gnu/libcuda.so.530.30.02"),  # where NVIDIA's runtime mounts the image's own
        met("/opt/compat/libcuda.so.1"),  # copied, so that the name does not tell its version
        met(COMPAT.replace("530.30.02", "525.60.13"), cuda="12.0"),  # by minor-version compatibility
    ],
)
def test_an_old_driver_with_a_newer_libcuda_that_works_is_forward_compatibility(old_driver, found):
    answer = old_driver(found)
    assert (answer.status, answer.data["support"]) == ("passed", "forward-compatibility")
    assert f"forward compatibility (cuda-compat: {found['library']}: serves CUDA {found['cuda']})" in answer.measured


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (met(HOSTS, cuda="11.4"), f"{HOSTS}: serves CUDA 11.4"),
        (met(HOSTS, cuda="12.1"), HOSTS),  # the kernel module's own cannot serve more, whatever it says
        (met("/usr/local/cuda/lib64/stubs/libcuda.so", code=34), "(34)"),
        (met(code=803), "(803)"),
        (met(code=804), "(804)"),  # a GeForce: cuda-compat is for data-centre GPUs
        (met(COMPAT.replace("530.30.02", "495.29.05"), cuda="11.5"), "serves CUDA 11.5"),
        (met(devices=0), "serves CUDA"),
        (met(None, code=-1), "libcuda.so.1: cuInit: no (-1)"),
    ],
)
def test_an_old_driver_fails_where_no_newer_libcuda_works(old_driver, found, said):
    answer = old_driver(found)
    assert (answer.status, answer.data["support"]) == ("failed", "too-old")
    assert said in answer.evidence


@pytest.mark.parametrize("code", [100, 802, 999])
def test_a_newer_libcuda_that_the_machine_does_not_let_start_is_no_verdict(old_driver, code):
    answer = old_driver(met(code=code))
    assert answer.status == "error"
    assert "whether the image's cuda-compat helps cannot be told" in answer.measured


def test_cuda_compat_that_the_drivers_folder_hides_is_no_verdict(old_driver):
    answer = old_driver(met(HOSTS, cuda="11.4"), met())
    assert answer.status == "error"
    assert "the driver's files in /opt/driver hide the image's cuda-compat" in answer.measured
    assert old_driver(met(HOSTS, cuda="11.4"), met(code=804)).status == "failed"


def test_a_driver_that_is_new_enough_is_not_asked_for_its_libcuda(monkeypatch):
    monkeypatch.setattr(nvidia, "versions", lambda: {"driver": "580.159.04", "cuda": "13.0"})
    monkeypatch.setattr(nvidia, "probe_with", None)
    answer = driver.driver_version(expectation())
    assert (answer.status, answer.data["support"]) == ("passed", "shipped-or-newer")


def test_a_missing_driver_is_no_verdict(monkeypatch):

    def absent():
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    monkeypatch.setattr(nvidia, "versions", absent)
    assert driver.driver_version(expectation()).status == "error"
