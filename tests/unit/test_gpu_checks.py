"""The judgements of the GPU checks, without a GPU: versions, limits, kernel names, origins of libraries."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from checks_package import family
from gpu_expectation import expectation

from assay.findings import Finding, Status, gpus_not_judged

gpu, nvidia, kernels = map(family, ("gpu", "nvidia", "kernels"))
family("bf16")  # registers its check
family("driver")  # likewise
libraries, flash, framework, order, faults = map(
    family, ("libraries_gpu", "flash_attention_gpu", "framework", "order", "gpu_faults")
)
flash_wheel = family("flash_attention")
family("sample")  # registers its checks


def no_device():
    raise nvidia.DriverError("cuInit", faults.CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected")


def without_the_variable(monkeypatch, devices):
    def probe_with(environment):
        assert "CUDA_VISIBLE_DEVICES" not in environment
        return {"library": "/usr/lib/libcuda.so.1", "devices": devices, "refused": "" if devices else "no device"}

    monkeypatch.setattr(nvidia, "probe_with", probe_with)


def test_a_hidden_gpu_is_the_images_fault(monkeypatch):
    monkeypatch.setattr(nvidia, "cuda_devices", no_device)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    without_the_variable(monkeypatch, 1)
    answer = gpu.gpu_visible(expectation())
    assert answer.status == "failed"
    assert "CUDA_VISIBLE_DEVICES=''" in answer.evidence
    assert "hides the GPU" in answer.measured


def test_a_variable_that_hides_nothing_is_not(monkeypatch):
    monkeypatch.setattr(nvidia, "cuda_devices", no_device)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    without_the_variable(monkeypatch, 0)
    answer = gpu.gpu_visible(expectation())
    assert (answer.status, answer.measured) == ("error", "no GPU, with or without CUDA_VISIBLE_DEVICES='0'")


def test_a_container_without_a_device_is_not_the_images_fault(monkeypatch):
    monkeypatch.setattr(nvidia, "cuda_devices", no_device)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu.Path, "glob", lambda self, pattern: iter(()))
    assert gpu.gpu_visible(expectation()).status == "error"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (34, "failed"),  # a stub of libcuda in the image
        (803, "failed"),
        (804, "failed"),
        (802, "error"),  # the fabric manager of an NVSwitch host is down
        (999, "error"),
        (100, "error"),  # nodes are there, nothing hides them: MIG without its capabilities, for one
    ],
)
def test_only_what_an_image_can_cause_fails_it(monkeypatch, code, status):
    def refuse():
        raise nvidia.DriverError("cuInit", code, "no")

    monkeypatch.setattr(nvidia, "cuda_devices", refuse)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu.Path, "glob", lambda self, pattern: iter([gpu.Path("/dev/nvidia0")]))
    monkeypatch.setattr(nvidia, "loaded_libcuda", lambda: "/usr/local/cuda/lib64/stubs/libcuda.so")
    monkeypatch.setattr(nvidia, "is_of_the_image", lambda path: True)
    answer = gpu.gpu_visible(expectation())
    assert answer.status == status
    assert f"({code})" in answer.evidence
    monkeypatch.setattr(nvidia, "is_of_the_image", lambda path: False)
    assert gpu.gpu_visible(expectation()).status == "error", "the host's own files do not fit each other"


@pytest.mark.parametrize("seen", [["GPU-2"], ["GPU-1", "GPU-2"]])
def test_another_gpu_than_the_chosen_one_is_no_verdict(monkeypatch, seen):
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True), empty=lambda size, device: None)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(nvidia, "cuda_devices", lambda: [{"name": "NVIDIA A10", "uuid": uuid} for uuid in seen])
    answer = gpu.gpu_visible(expectation())
    assert answer.status == "error"
    assert answer.measured.startswith("not the chosen GPU alone: NVIDIA A10 (GPU-")
    monkeypatch.setattr(nvidia, "cuda_devices", lambda: [{"name": "NVIDIA A10", "uuid": "GPU-1"}])
    assert gpu.gpu_visible(expectation()).status == "passed"


@pytest.mark.parametrize(
    ("text", "is_the_hosts"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", True),
        ("CUDA error: uncorrectable ECC error encountered", True),
        ("CUDA error: unknown error", True),
        ("CUDA error: the launch timed out and was terminated", True),
        ("No CUDA GPUs are available", True),
        ("CUDA error: no kernel image is available for execution on the device", False),
        ("CUDA error: an illegal memory access was encountered", False),
        ("This flash attention build does not contain head dim 96 in bf16.", False),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", False),
    ],
)
def test_the_hosts_faults_are_told_from_the_images(text, is_the_hosts):
    assert faults.of_the_host(text, free_bytes=0) is is_the_hosts
    assert faults.of_the_host(text, free_bytes=70 << 30) is is_the_hosts


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "cuFFT error: CUFFT_INTERNAL_ERROR",
        "FIND was unable to find an engine to execute this computation",
    ],
)
def test_what_a_full_gpu_and_a_wrong_library_both_say_is_told_by_the_free_memory(text):
    assert faults.of_the_host(text, free_bytes=1 << 30)
    assert not faults.of_the_host(text, free_bytes=70 << 30)


def test_the_math_factor_eases_beyond_head_dim_128():
    assert [flash.math_factor(head_dim) for head_dim in (64, 128)] == [flash.MATH_FACTOR] * 2
    assert 1.3 < flash.math_factor(256) < flash.math_factor(192) < flash.MATH_FACTOR


class Torch:
    """What `gpu.matches-row` asks of torch."""

    def __init__(self, capability, flags):
        self.cuda = SimpleNamespace(
            get_device_capability=lambda index: capability, get_device_name=lambda index: "NVIDIA Test"
        )
        self._C = SimpleNamespace(_cuda_getArchFlags=lambda: flags)


@pytest.mark.parametrize(
    ("here", "row", "flags", "flash_archs", "status"),
    [
        ((9, 0), ["9.0"], "sm_50", [], "passed"),  # of the row: whether its code runs is for the others to say
        ((8, 6), ["8.0"], "sm_80", ["80"], "passed"),  # not of the row, but sm_80 code runs on it
        ((9, 0), ["8.0"], "sm_80 sm_90", ["80", "90"], "passed"),
        ((9, 0), ["8.0"], "sm_80 sm_90", ["80"], "and flash-attn holds no code for it:"),
        ((9, 0), ["8.0"], "sm_80", ["80", "90"], "and torch holds no code for it:"),
        ((9, 0), ["8.0"], "sm_80", ["80"], "torch holds no code for it and flash-attn holds no code for it:"),
        ((10, 0), ["9.0"], "sm_90 compute_90", None, "passed"),  # PTX; no extension: flash-attn.import has the word
        ((7, 5), ["8.0"], "sm_75 sm_80", None, "and it has no bf16 tensor cores:"),
        ((9, 0), [], "sm_80", ["80"], "passed"),
    ],
)
def test_a_gpu_that_the_row_is_not_for_is_no_verdict(monkeypatch, here, row, flags, flash_archs, status):
    monkeypatch.setitem(sys.modules, "torch", Torch(here, flags))
    spec = flash_archs is not None and SimpleNamespace(origin="extension.so")
    monkeypatch.setattr(flash_wheel.importlib.util, "find_spec", lambda name: spec or None)
    kernels = [gpu.machine_code.Kernel("flash_fwd_kernel", arch) for arch in flash_archs or ()]
    monkeypatch.setattr(gpu.machine_code, "kernels", lambda path: kernels)
    gpus = [{"name": f"GPU {capability}", "capability": capability} for capability in row]
    answer = gpu.gpu_matches_row(expectation(gpus=gpus, flash_attn={"source": "auto"}))
    if status == "passed":
        assert answer.status == "passed", answer
    else:
        assert answer.status == "error"
        assert status in answer.measured
        assert "judge the row on one of GPU 8.0 (8.0)" in answer.measured


@pytest.mark.parametrize(
    ("here", "gpus", "flags", "measured", "not_judged"),
    [
        ((9, 0), {"H100": "9.0"}, "", "NVIDIA Test (9.0) runs the same machine code as H100", []),
        (
            (9, 0), {"A100": "8.0", "H100": "9.0", "H200": "9.0", "L4": "8.9"}, "",
            "NVIDIA Test (9.0) runs the same machine code as H100, H200; not judged: A100 (8.0), L4 (8.9)",
            ["A100 (8.0)", "L4 (8.9)"],
        ),
        (
            (9, 0), {"A100": "8.0"}, "sm_80 sm_90",
            "NVIDIA Test (9.0) is none of the row's GPUs, and the image holds code for it; not judged: A100 (8.0)",
            ["A100 (8.0)"],
        ),
        ((9, 0), {}, "", "NVIDIA Test (9.0)", []),
    ],
)  # fmt: skip
def test_the_rows_gpus_that_this_one_does_not_speak_for_are_named(monkeypatch, here, gpus, flags, measured, not_judged):
    monkeypatch.setitem(sys.modules, "torch", Torch(here, flags))
    named = [{"name": name, "capability": capability} for name, capability in gpus.items()]
    answer = gpu.gpu_matches_row(expectation(gpus=named, flash_attn={"source": "none"}))
    assert (answer.status, answer.measured) == ("passed", measured)
    assert answer.data == {"capability": "9.0", "not_judged": not_judged}
    finding = Finding(check="gpu.matches-row", status=Status(answer.status), data=answer.data)
    assert gpus_not_judged([finding]) == not_judged


def test_needs_at_gpu_are_no_obstacle_at_level_image():
    answers = {"torch.import": framework.passed("", ""), "flash-attn.import": framework.passed("", "")}
    sample = framework.REGISTRY["sample.generate"]
    assert order.without_asking(sample, answers) is None
    no_verdict = framework.Answer("error", measured="none of the row's GPUs")
    answer = order.without_asking(sample, {**answers, "gpu.matches-row": no_verdict})
    assert (answer.status, answer.measured) == ("not-run", "needs gpu.matches-row, error: none of the row's GPUs")


def test_uuid_is_written_as_nvidia_smi_does():
    raw = bytes.fromhex("00112233445566778899aabbccddeeff")
    assert nvidia.format_uuid(raw) == "GPU-00112233-4455-6677-8899-aabbccddeeff"


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>, false>(flash::Flash_fwd_params)",
            True,
        ),
        ("void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<64>>(flash::Flash_fwd_params)", True),
        ("void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<128>>(...)", False),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_64x64x128", False),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", False),
        ("void flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<64>>(flash::Flash_fwd_params)", True),
        ("void flash::flash_bwd_dot_do_o_kernel<true>(flash::Flash_bwd_params)", False),
    ],
)
def test_only_flash_attns_own_forward_kernels_count(name, own):
    assert bool(kernels.FLASH_ATTN_FORWARD.search(name)) is own


def test_libraries_are_judged_by_their_package():
    site = "/venv/lib/python3.11/site-packages/nvidia"
    owners = {
        f"{site}/cublas/lib/libcublas.so.12": ("nvidia-cublas-cu12", "12.1.3.1"),
        f"{site}/cufft/lib/libcufft.so.11": ("nvidia-cufft-cu12", "11.0.2.54"),
    }
    locked = {"nvidia-cublas-cu12": "12.1.3.1", "nvidia-cufft-cu12": "11.0.2.54"}
    assert libraries.judge(owners, owners, locked) == ([], owners)
    stray = "/usr/local/cuda-12.1/lib64/libcublas.so.12"
    wrong, _ = libraries.judge([*owners, stray], owners, locked)
    assert wrong == [f"libcublas.so.12 comes from {stray}, which belongs to no package that torch requires"]
    wrong, _ = libraries.judge(owners, owners, {**locked, "nvidia-cufft-cu12": "11.0.2.4"})
    assert wrong == ["libcufft.so.11 is nvidia-cufft-cu12 11.0.2.54; 11.0.2.4 is locked"]


def test_cuda_libraries_are_told_from_the_drivers():
    names = {
        "libcublasLt.so.12": True,
        "libcudnn_engines_precompiled.so.9": True,
        "libnvJitLink.so.12": True,
        "libnvrtc-builtins.so.12.1": True,
        "libcudart-9335f6a2.so.12": True,
        "libcuda.so.1": False,
        "libcuda.so.580.159.04": False,
        "libnvidia-ml.so.1": False,
        "libtorch_cuda.so": False,
    }
    assert {name: bool(libraries.CUDA_LIBRARY.fullmatch(name)) for name in names} == names


def test_mapped_files_are_read_from_maps(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 fe:00 12 /opt/venv/lib/with space/libcublas.so.12\n"
        "7f01-7f02 r--p 00000000 fe:00 12 /opt/venv/lib/with space/libcublas.so.12\n"
        "7f02-7f03 rw-p 00000000 00:00 0 \n"
        "7ffd-7ffe rw-p 00000000 00:00 0 [stack]\n"
    )
    assert libraries.mapped_files(str(maps)) == {"/opt/venv/lib/with space/libcublas.so.12"}


def test_gpu_errors_are_told_from_refusals():
    assert flash.GPU_ERROR.search("CUDA error: no kernel image is available for execution on the device")
    assert not flash.GPU_ERROR.search("This flash attention build does not contain head dim 96 in bf16.")


def test_every_gpu_check_needs_a_visible_gpu_but_the_driver():
    gpu_level = {check.id: check for check in framework.REGISTRY.values() if check.level == "gpu"}
    mine = {"libraries.exercised", "bf16.tensor-cores", "flash-attn.numerics", "flash-attn.speed"}
    assert mine | {"gpu.visible", "gpu.matches-row", "driver.version"} == gpu_level.keys()
    assert all("gpu.matches-row" in gpu_level[check].needs for check in mine)
    assert gpu_level["gpu.matches-row"].needs == ("gpu.visible",)
    assert gpu_level["gpu.visible"].needs == ("torch.import", "driver.version")
    assert gpu_level["driver.version"].needs == ()
