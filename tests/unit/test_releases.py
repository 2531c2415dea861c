"""The tables as they are shipped, what the loader refuses, and that a new CUDA release is lines and no code."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from binary_compatibility import RUNS_ON
from hypothesis import given
from hypothesis import strategies as st

from assay import matrix, releases
from assay.errors import ExitCode, MatrixError
from assay.releases import runs_on
from assay.releases.table import DATA

CUDA_12_6 = """
[[release]]
name = "12.6.3"
aliases = ["12.6.77"]
driver-shipped = "560.35.05"
driver-minimum = "525.60.13"

[release.components]
cudart = "12.6.77"
nvcc = "12.6.85"
nvjitlink = "12.6.85"
nvrtc = "12.6.85"
cublas = "12.6.4.1"
cccl = "12.6.77"

[release.packages]
nvidia-cuda-runtime-cu12 = "12.6.77"
nvidia-cuda-nvcc-cu12 = "12.6.85"
"""
TORCH_CU126 = """
[[build]]
version = "2.6.0+cu126"
cuda = "12.6"
cuda-release = "12.6.3"
cxx11-abi = true
archs = ["50", "90"]
pythons = ["3.11"]
lock = "torch-2.6.0-cu126"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped tables."""
    for file in DATA.glob("*.toml"):
        shutil.copy(file, tmp_path)
    return tmp_path


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")


@pytest.mark.parametrize(
    ("alias", "name", "short", "cudart", "nvjitlink", "shipped"),
    [
        ("12.0.146", "12.0.1", "12.0", "12.0.146", "12.0.140", "525.85.12"),
        ("12.1.105", "12.1.1", "12.1", "12.1.105", "12.1.105", "530.30.02"),
        ("12.2.0", "12.2.0", "12.2", "12.2.53", "12.2.91", "535.54.03"),
        ("12.4", "12.4.1", "12.4", "12.4.127", "12.4.127", "550.54.15"),
        ("13.0", "13.0.2", "13.0", "13.0.96", "13.0.88", "580.95.05"),
    ],
)
def test_release_by_the_names_people_use(alias, name, short, cudart, nvjitlink, shipped):
    release = releases.load().cuda(alias)
    assert (release.name, release.short) == (name, short)
    assert release.components["cudart"] == cudart
    assert release.components["nvjitlink"] == nvjitlink
    assert release.driver_shipped == shipped


def test_every_release_has_the_same_components_and_packages_of_its_own_versions():
    for release in releases.load().cudas.values():
        assert set(release.components) == {"cudart", "nvcc", "nvjitlink", "nvrtc", "cublas", "cccl"}
        versions = {version.removesuffix(".post1") for version in release.packages.values()}
        assert versions == set(release.components.values())


def test_torch_build():
    build = releases.load().torch("2.4.0+cu121")
    assert (build.cuda, build.cuda_release, build.cxx11_abi) == ("12.1", "12.1.1", False)
    assert build.archs == ("50", "60", "70", "75", "80", "86", "90")


def test_every_torch_build_names_a_release_of_its_cuda():
    tables = releases.load()
    for build in tables.torches.values():
        assert tables.cuda(build.cuda_release).short == build.cuda


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM-64GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("NVIDIA A100-PG509-200", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA A100X", "A100"),
        ("NVIDIA A30", "A30"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA B200", "B200"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla V100-PCIE-32GB", "V100"),
        ("Tesla V100S-PCIE-32GB", "V100"),
        ("Tesla V100-SXM2-32GB-LS", "V100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_gpu_by_the_name_that_the_driver_reports(device, name):
    assert releases.load().gpu_of_device(device) == releases.load().gpu(name)


@pytest.mark.parametrize(
    "device",
    [
        *("NVIDIA A10M", "NVIDIA A800-SXM4-80GB", "NVIDIA H200 NVL", "NVIDIA H100 64GB HBM2", "NVIDIA GH200 480GB"),
        *("NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA RTX 6000D", "NVIDIA L40G", ""),
        # vGPU, which shares a GPU by time or by MIG
        *(
            "NVIDIA A100-4C",
            "NVIDIA A100-1-5C",
            "NVIDIA A100D-80C",
            "NVIDIA A100-40C",
            "NVIDIA A100X-4C",
            "GRID V100-16Q",
        ),
        *("NVIDIA A10-24Q", "NVIDIA A30-1-6C", "NVIDIA L40-48Q", "NVIDIA L40S-48C", "NVIDIA H100-80C", "GRID T4-16C"),
        # slices of a GPU
        *("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100 80GB PCIe MIG 3g.40gb", "NVIDIA A30 MIG 1g.6gb"),
        *("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100 PCIe MIG 1g.10gb", "NVIDIA B200 MIG 1g.23gb"),
    ],
)
def test_no_gpu_passes_for_another_with_a_similar_name_nor_a_part_for_the_whole(device):
    assert releases.load().gpu_of_device(device) is None


def test_every_device_pattern_ends():
    """One without an end takes slices and virtual GPUs, whose names go on, for the whole GPU."""
    assert [gpu.name for gpu in releases.load().gpus.values() if not re.match(r"\^.*\$$", gpu.device)] == []


@pytest.mark.parametrize(
    ("look_up", "name", "nearest"),
    [
        ("cuda", "12.1.106", "perhaps you meant '12.1.105'"),
        ("torch", "2.4.0+cu120", "perhaps you meant '2.4.0+cu121'"),
        ("gpu", "a100", "perhaps you meant 'A100'"),
        ("gpu", "4090", "perhaps you meant 'RTX 4090'"),
        ("compiler", "99", "choose from '11.8'"),
    ],
)
def test_unknown_name_gets_the_nearest(look_up, name, nearest):
    with pytest.raises(MatrixError, match="unknown") as caught:
        getattr(releases.load(), look_up)(name)
    assert nearest in str(caught.value)
    assert caught.value.code is ExitCode.USAGE


def test_adding_cuda_12_6_and_a_torch_for_it_is_adding_lines_and_locks(folder, tmp_path, monkeypatch):
    append(folder / "cuda.toml", CUDA_12_6)
    append(folder / "torch.toml", TORCH_CU126)
    tables = releases.load(folder)
    assert tables.cuda("12.6.77").short == "12.6"
    assert tables.torch("2.6.0+cu126").cuda_release == "12.6.3"
    file = tmp_path / "matrix.toml"
    file.write_text(
        '[[row]]\nid = "cu126"\nexpect = "certify"\ncuda = "12.6.77"\ntorch = "2.6.0+cu126"\n', encoding="utf-8"
    )
    with pytest.raises(MatrixError) as unlocked:
        matrix.load(file, releases=tables)
    commands = re.findall(r"`nox -s lock -- (\S+)`", str(unlocked.value))
    assert commands == ["cuda-12.6.3", "torch-2.6.0-cu126"]

    locks = tmp_path / "docker" / "locks"
    (locks / "torch-2.6.0-cu126").mkdir(parents=True)
    for lock in ("cuda-12.6.3", "torch-2.6.0-cu126/torch-py3.11", "torch-2.6.0-cu126/runtime-py3.11"):
        (locks / f"{lock}.txt").touch()
    monkeypatch.setattr("assay.paths.docker_dir", lambda: tmp_path / "docker")
    (row,) = matrix.load(file, releases=tables).rows
    assert (row.cuda, row.torch) == ("12.6.3", "2.6.0+cu126")
    with pytest.raises(MatrixError):
        matrix.load(file)  # the shipped tables do not have it


def test_digest_follows_what_the_tables_say_and_not_how(folder):
    shipped = releases.load().digest
    assert releases.load(folder).digest == shipped
    append(folder / "gpus.toml", "\n# a comment\n")
    assert releases.load(folder).digest == shipped
    append(folder / "cuda.toml", CUDA_12_6)
    assert releases.load(folder).digest != shipped


def test_all_problems_of_the_tables_at_once(folder):
    append(folder / "cuda.toml", CUDA_12_6.replace('"12.6.3"', '"12.1.105"').replace("driver-shipped", "driver-shiped"))
    append(folder / "cuda.toml", CUDA_12_6 + CUDA_12_6)
    append(folder / "torch.toml", TORCH_CU126.replace("12.6.3", "12.6.4"))
    append(folder / "gpus.toml", "\n[[gpu]]\nname = 'X'\nchip = 'X'\ncapability = '8.0'\nbf16-tflops = 1.0\n")
    append(folder / "gpus.toml", "memory-gb = 1\ndevice = '('\n")
    with pytest.raises(MatrixError) as caught:
        releases.load(folder)
    text = str(caught.value)
    assert "release 6: driver-shiped" in text
    assert "release 8: '12.6.3' is taken" in text
    assert "release 8: '12.6.77' is taken" in text
    assert "its cuda-release '12.6.4' is not in cuda.toml; perhaps you meant '12.6.3'" in text
    assert "gpu X: device '(' is not a regular expression" in text


def test_bad_toml_and_a_missing_table(folder):
    append(folder / "torch.toml", "\n[[build")
    (folder / "gpus.toml").unlink()
    with pytest.raises(MatrixError) as caught:
        releases.load(folder)
    assert len(caught.value.problems) == 2
    assert "torch.toml: not valid TOML" in str(caught.value)
    assert "gpus.toml: cannot be read" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "capability", "runs"), [*RUNS_ON, ("8.0", "8.6", True), ("sm_80", "9.0", False), ("12.0", "10.0", False)]
)
def test_machine_code_runs_on(code, capability, runs):
    assert runs_on(code, capability) is runs


@pytest.mark.parametrize("bad", ["", "8", "compute_80", "8.0.1", "sm_", "x80", "80b"])
def test_what_is_no_architecture(bad):
    with pytest.raises(ValueError, match="not a CUDA architecture"):
        runs_on(bad, "8.0")
    with pytest.raises(ValueError, match="not a CUDA architecture"):
        runs_on("8.0", bad)


@given(st.integers(5, 12), st.integers(0, 9), st.integers(5, 12), st.integers(0, 9))
def test_never_across_major_versions_and_never_from_newer_to_older(major, minor, gpu_major, gpu_minor):
    for code in (f"{major}.{minor}", f"sm_{major}{minor}"):
        assert runs_on(code, f"{gpu_major}.{gpu_minor}") == (major == gpu_major and minor <= gpu_minor)
