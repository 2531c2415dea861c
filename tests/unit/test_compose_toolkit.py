"""The script that lays NVIDIA's wheels out as a toolkit, on a small tree of the same shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/toolkit/layout.py"

# Path in the installed wheels -> content, as nvidia-cuda-runtime-cu12 and its kin install them.
WHEELS = {
    "nvidia/__init__.py": "",
    "nvidia/cuda_runtime/__init__.py": "",
    "nvidia/cuda_runtime/include/cuda_runtime.h": "// header",
    "nvidia/cuda_runtime/lib/__init__.py": "",
    "nvidia/cuda_runtime/lib/libcudart.so.12": "cudart",
    "nvidia/cuda_nvcc/bin/ptxas": "ptxas",
    "nvidia/cuda_nvcc/include/crt/host_config.h": "// crt",
    "nvidia/cuda_nvcc/nvvm/lib64/libnvvm.so": "nvvm",
    "nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc": "bc",
    "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.1": "builtins",
    "nvidia_cuda_runtime_cu12-12.1.105.dist-info/RECORD": "",
    "nvidia_cuda_nvcc_cu12-12.1.105.dist-info/RECORD": "",
    "nvidia_cuda_nvrtc_cu12-12.1.105.dist-info/RECORD": "",
}


def lay_out(root: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, content in files.items():
        path = root / "wheels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "local").mkdir()
    command = [sys.executable, str(SCRIPT), str(root / "wheels"), str(root / "local/cuda-12.1"), "--release", "12.1.1"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_layout_is_that_of_a_toolkit(tmp_path: Path) -> None:
    answer = lay_out(tmp_path, WHEELS)
    assert answer.returncode == 0, answer.stderr
    toolkit = tmp_path / "local/cuda-12.1"
    found = sorted(path.relative_to(toolkit).as_posix() for path in toolkit.rglob("*") if not path.is_dir())
    assert found == [
        "bin/ptxas",
        "include/crt/host_config.h",
        "include/cuda_runtime.h",
        "lib64/libcudart.so",
        "lib64/libcudart.so.12",
        "lib64/libnvrtc-builtins.so",
        "lib64/libnvrtc-builtins.so.12.1",
        "nvvm/lib64/libnvvm.so",
        "nvvm/libdevice/libdevice.10.bc",
        "version.json",
    ]
    assert (toolkit / "lib64/libcudart.so").readlink() == Path("libcudart.so.12")
    assert (tmp_path / "local/cuda").readlink() == Path("cuda-12.1")
    assert os.access(toolkit / "bin/ptxas", os.X_OK)


def test_version_json_has_the_keys_of_nvidias_own(tmp_path: Path) -> None:
    lay_out(tmp_path, WHEELS)
    version = json.loads((tmp_path / "local/cuda/version.json").read_text())
    assert {key: entry["version"] for key, entry in version.items()} == {
        "cuda": "12.1.1",
        "cuda_cudart": "12.1.105",
        "cuda_nvcc": "12.1.105",
        "cuda_nvrtc": "12.1.105",
    }


def test_two_wheels_with_one_file_that_differs(tmp_path: Path) -> None:
    answer = lay_out(tmp_path, WHEELS | {"nvidia/cuda_nvcc/include/cuda_runtime.h": "// another"})
    assert answer.returncode != 0
    assert "two wheels bring the same file" in answer.stderr


@pytest.mark.parametrize("content", ["", "// header"])
def test_a_file_that_two_wheels_agree_on(tmp_path: Path, content: str) -> None:
    same = {"nvidia/cuda_runtime/include/cuda_runtime.h": content, "nvidia/cuda_nvcc/include/cuda_runtime.h": content}
    assert lay_out(tmp_path, WHEELS | same).returncode == 0


def test_wheels_without_a_runtime(tmp_path: Path) -> None:
    answer = lay_out(tmp_path, {"nvidia/cuda_nvcc/bin/ptxas": "ptxas"})
    assert answer.returncode != 0
    assert "hold no runtime" in answer.stderr
