"""The toolkit's versions, read from files as NVIDIA writes them."""

from __future__ import annotations

import dataclasses
import errno
import json
import subprocess
from importlib import metadata

import pytest
from checks_package import family

toolkit, sources = family("toolkit"), family("toolkit_sources")
COMPONENTS = {
    "cudart": "12.1.105",
    "nvcc": "12.1.105",
    "nvjitlink": "12.1.105",
    "cublas": "12.1.3.1",
    "cccl": "12.1.109",
}
STAMP = b"\0junk\0Cuda compilation tools, release 12.1, V12.1.105\nBuild cuda_12.1.r12.1/compiler.32688072_0\0"
CUBLAS = "".join(
    f"#define CUBLAS_VER_{part} {n}\n" for part, n in (("MAJOR", 12), ("MINOR", 1), ("PATCH", 3), ("BUILD", 1))
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A toolkit of CUDA 12.1.1 as far as files without machine code go; ptxas is a script that prints the same."""
    root = tmp_path / "cuda-12.1"
    for name in ("bin", "include", "lib64", "nvvm/lib64"):
        (root / name).mkdir(parents=True)
    (root / "include/cuda.h").write_text("#define CUDA_VERSION 12010\n")
    (root / "include/cuda_runtime_api.h").write_text("/** x */\n#define CUDART_VERSION  12010\n")
    (root / "include/cublas_api.h").write_text(CUBLAS)
    (root / "bin/ptxas").write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.1, V12.1.105'\n")
    (root / "bin/ptxas").chmod(0o755)
    for name in ("lib64/libnvJitLink.so.12", "nvvm/lib64/libnvvm.so"):
        (root / name).write_bytes(STAMP)
    names = {"cuda": "12.1.1", **{toolkit.NAMES_IN_VERSION_JSON[name]: version for name, version in COMPONENTS.items()}}
    (root / "version.json").write_text(json.dumps({name: {"name": name, "version": v} for name, v in names.items()}))
    (tmp_path / "cuda").symlink_to("cuda-12.1")
    monkeypatch.setattr(toolkit, "LOCAL", tmp_path)
    # Libraries that have to be loaded to tell their version are for the tests on real images.
    readable = tuple(s for s in toolkit.SOURCES if s.read not in (sources.from_cudart_call, sources.from_cublaslt_call))
    monkeypatch.setattr(toolkit, "SOURCES", readable)
    return root


def problems(folder):
    return toolkit.read_sources(folder, COMPONENTS, complete=True)[1] + toolkit.layout_problems(folder)


def test_a_tool_that_takes_too_long_is_the_machines_fault(folder, monkeypatch):
    def slow(path):
        raise subprocess.TimeoutExpired([str(path)], 20)

    slowly = tuple(
        dataclasses.replace(source, read=slow) if source.path == "bin/ptxas" else source for source in toolkit.SOURCES
    )
    monkeypatch.setattr(toolkit, "SOURCES", slowly)
    with pytest.raises(subprocess.TimeoutExpired):
        toolkit.read_sources(folder, COMPONENTS, complete=True)


def test_a_disk_in_trouble_is_the_machines_fault(folder, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    failing = tuple(
        dataclasses.replace(source, read=fail) if source.path == "bin/ptxas" else source for source in toolkit.SOURCES
    )
    monkeypatch.setattr(toolkit, "SOURCES", failing)
    with pytest.raises(OSError, match="Input/output error"):
        toolkit.read_sources(folder, COMPONENTS, complete=True)


def test_a_tool_that_was_killed_says_nothing_and_one_that_crashes_is_named(folder):
    ptxas = folder / "bin/ptxas"
    ptxas.write_text("#!/bin/sh\nkill -KILL $$\n")
    with pytest.raises(RuntimeError, match="killed by SIGKILL"):
        toolkit.read_sources(folder, COMPONENTS, complete=True)
    ptxas.write_text("#!/bin/sh\nkill -SEGV $$\n")
    (line,) = problems(folder)
    assert line == f"{ptxas} does not tell its version (required: nvcc 12.1.105)"


def test_a_right_toolkit_has_no_problem(folder):
    readings, wrong = toolkit.read_sources(folder, COMPONENTS, complete=True)
    assert wrong == []
    assert {reading["file"].rpartition("/")[2]: reading["version"] for reading in readings} == {
        "cuda_runtime_api.h": "12.1",
        "cuda.h": "12.1",
        "ptxas": "12.1.105",
        "libnvvm.so": "12.1.105",
        "libnvJitLink.so.12": "12.1.105",
        "cublas_api.h": "12.1.3.1",
    }
    assert toolkit.layout_problems(folder) == []
    stated, wrong = toolkit.read_version_json(folder, "12.1.1", COMPONENTS, optional=False)
    assert (stated, wrong) == (COMPONENTS, [])


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("lib64/libnvJitLink.so.12", STAMP.replace(b"V12.1.105", b"V12.0.140"), "is nvjitlink 12.0.140, not 12.1.105"),
        ("lib64/libnvJitLink.so.12", b"nothing", "does not tell its version"),
        ("lib64/libnvJitLink.so.12", b"", "cannot be used"),
        ("lib64/libnvJitLink.so.12", None, "is missing (required: nvjitlink 12.1.105)"),
        ("include/cuda.h", b"#define CUDA_VERSION 12020\n", "is cudart 12.2, not 12.1.105"),
        ("include/cublas_api.h", CUBLAS.replace("BUILD 1", "BUILD 9").encode(), "is cublas 12.1.3.9, not 12.1.3.1"),
        ("bin/ptxas", b"#!/bin/sh\necho 'release 12.1, V12.1.66'\n", "does not tell its version"),
    ],
)
def test_a_changed_file_is_named(folder, path, content, told):
    if content is None:
        (folder / path).unlink()
    else:
        (folder / path).write_bytes(content)
    (line,) = problems(folder)
    assert line.startswith(str(folder / path))
    assert told in line


def test_a_real_file_name_tells_its_version(folder):
    (folder / "lib64/libcudart.so.12.0.146").write_bytes(b"x")
    (folder / "lib64/libcudart.so.12").symlink_to("libcudart.so.12.0.146")
    (line,) = problems(folder)
    assert line == f"{folder}/lib64/libcudart.so.12 is cudart 12.0.146, not 12.1.105"


def test_version_json_is_held_against_the_release(folder):
    _, wrong = toolkit.read_version_json(folder, "12.0.1", {**COMPONENTS, "nvcc": "12.0.140"}, optional=False)
    assert [text.partition("states ")[2] for text in wrong] == [
        "nvcc 12.1.105, not 12.0.140",
        "CUDA 12.1.1, not 12.0.1",
    ]
    (folder / "version.json").unlink()
    assert toolkit.read_version_json(folder, "12.1.1", COMPONENTS, optional=True) == ({}, [])
    assert "cannot be read" in toolkit.read_version_json(folder, "12.1.1", COMPONENTS, optional=False)[1][0]


def test_the_link_must_lead_to_the_toolkit(folder):
    link = folder.parent / "cuda"
    link.unlink()
    link.symlink_to("cuda-13.0")
    assert toolkit.layout_problems(folder) == [f"{link} must lead to {folder}; it is cuda-13.0"]


@pytest.mark.parametrize(
    ("version", "told", "begins"),
    [("12.1.105", "12.1", True), ("12.1.105", "12.10", False), ("12.1", "12.1.105", False)],
)
def test_a_short_version_is_the_beginning_of_a_long_one(version, told, begins):
    assert toolkit.begins(version, told) is begins


GIVEN = {"cuda": {"release": "12.1.1", "components": COMPONENTS}, "toolkit": "base"}


@pytest.fixture
def given(folder):
    """A toolkit as a base image brings it: the runtime and the compiler, real file names, no version.json."""
    for path in ("version.json", "lib64/libnvJitLink.so.12", "include/cublas_api.h", "nvvm/lib64/libnvvm.so"):
        (folder / path).unlink()
    (folder / "lib64/libcudart.so.12.1.105").write_bytes(b"x")
    (folder / "lib64/libcudart.so.12").symlink_to("libcudart.so.12.1.105")
    return folder


def test_a_toolkit_that_the_base_brings_needs_no_version_json(given):
    answer = toolkit.version(GIVEN)
    assert answer.status == "passed", answer.evidence
    assert answer.measured == (
        f"CUDA 12.1.1 in {given}: cudart, nvcc told by 4 files and no version.json; "
        "no file tells nvjitlink, cublas, cccl"
    )
    assert answer.data["untold"] == ["nvjitlink", "cublas", "cccl"]


def test_the_same_toolkit_made_by_us_is_incomplete(given):
    answer = toolkit.version({**GIVEN, "toolkit": "wheels"})
    assert answer.status == "failed"
    for missing in ("version.json", "libnvvm.so", "libnvJitLink.so.12", "cublas_api.h", "version of cccl"):
        assert missing in answer.evidence


def test_version_json_is_one_more_witness_where_it_is(given):
    (given / "version.json").write_text(
        json.dumps({"cuda": {"version": "12.1.1"}, "cuda_nvcc": {"version": "12.1.66"}})
    )
    answer = toolkit.version(GIVEN)
    assert answer.status == "failed"
    assert answer.evidence == f"{given}/version.json states nvcc 12.1.66, not 12.1.105"


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        # Whatever is there must agree, though it need not be there.
        ("lib64/libnvJitLink.so.12", STAMP.replace(b"V12.1.105", b"V12.0.140"), "is nvjitlink 12.0.140, not 12.1.105"),
        ("include/cublas_api.h", CUBLAS.replace("PATCH 3", "PATCH 2").encode(), "is cublas 12.1.2.1, not 12.1.3.1"),
        ("bin/nvcc", b"#!/bin/sh\necho 'Cuda compilation tools, release 12.1, V12.1.66'\n", "is nvcc 12.1.66"),
        # The runtime and the compiler must tell.
        ("bin/ptxas", None, "ptxas is missing"),
        ("bin/ptxas", b"#!/bin/sh\n", "ptxas does not tell its version"),
        ("include/cuda.h", None, "cuda.h is missing"),
        ("lib64/libcudart.so.12", b"x", "version of cudart in full: only 12.1 is told"),
    ],
)
def test_a_given_toolkit_that_differs_is_refused(given, path, content, told):
    if content is None:
        (given / path).unlink()
    else:
        (given / path).unlink(missing_ok=True)
        (given / path).write_bytes(content)
        (given / path).chmod(0o755)
    answer = toolkit.version(GIVEN)
    assert answer.status == "failed"
    assert told in answer.evidence


@pytest.mark.parametrize(
    ("requirements", "pinned"),
    [
        ({"torch": ['nvidia-cuda-runtime-cu12==12.1.105; platform_system == "Linux"']}, "12.1.105"),
        (
            {
                "torch": ['cuda-toolkit[cudart]==13.0.2; platform_system == "Linux"'],
                "cuda-toolkit": ["nvidia-cuda-runtime==13.0.96.*; extra == 'cudart'"],
            },
            "13.0.96",
        ),
        ({"torch": ["filelock"]}, None),
    ],
)
def test_the_runtime_that_torch_pins(monkeypatch, requirements, pinned):
    def requires(name):
        if name not in requirements:
            raise metadata.PackageNotFoundError(name)
        return requirements[name]

    monkeypatch.setattr(metadata, "requires", requires)
    assert toolkit._cudart_that_torch_pins() == pinned
