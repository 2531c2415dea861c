"""Rows that no engine could build are mistakes of the file: all of them at once, each with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assay import matrix
from assay.cli import main
from assay.errors import MatrixError
from assay.matrix.distributions import System, base_with, system_of

ROW = '[[row]]\nid = "a"\nexpect = "certify"\n'  # the line after it is line 4
REJECT = ROW.replace("certify", "reject")
DIGEST = "sha256:" + "0" * 64


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "matrix.toml"
    file.write_text(text, encoding="utf-8")
    try:
        matrix.load(file)
    except MatrixError as error:
        return [re.sub(r"^.*?matrix\.toml:", "", problem) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # locks
        (
            "python = '3.9'",
            "4: row 'a': torch 2.4.0+cu121 is not locked for Python 3.9: docker/locks/torch-2.4.0-cu121/torch-py3.9"
            ".txt is missing; choose from '3.10', '3.11', '3.12'",
        ),
        ("torch = 'base'", "1: row 'a': runtime = \"newbie\" is locked for each torch that assay installs"),
        # flash-attn's source and compiler
        (
            "flash-attn = { version = '2.7.4', source = 'compile' }",
            "4: row 'a': flash-attn.version '2.7.4' cannot be compiled: docker/flash-attn/source/sdist-2.7.4.txt is "
            "missing; perhaps you meant '2.8.3'",
        ),
        ("flash-attn = { version = '2.7.4', source = 'skip-cuda' }", "'2.7.4' cannot be compiled"),
        (
            "flash-attn = { source = 'compile', archs = ['80',\n'120'] }",
            "4: row 'a': flash-attn.archs '120': nvcc 12.4 compiles flash-attn 2.8.3 for 80 and 90 only",
        ),
        ("flash-attn = { source = 'compile', nvcc = '12.5' }", "4: row 'a': unknown nvcc '12.5'; perhaps you meant"),
        # the base's name
        (
            "base = 'nvidia/cuda:12.1.1-devel-ubuntu22.04@sha256:abc'",
            "4: row 'a': 'base' cannot be 'nvidia/cuda:12.1.1-devel-ubuntu22.04@sha256:abc': give an image reference "
            "such as 'debian:bookworm'; a digest is '@sha256:' and 64 hexadecimal digits",
        ),
        ("base = 'debian:'", "'base' cannot be 'debian:'"),
        ("base = 'Debian:bookworm'", "'base' cannot be 'Debian:bookworm'"),
        ("base = 'nvidia/cuda::12'", "'base' cannot be 'nvidia/cuda::12'"),
        # what the base can install
        (
            "python = '3.10'",
            "4: row 'a': debian:bookworm has no Python 3.10, and neither has its package archive (it has 3.11); "
            "perhaps you meant '3.11', or take a base that has it, such as 'ubuntu:22.04'",
        ),
        (
            "base = 'debian:trixie-slim'",
            "4: row 'a': debian:trixie-slim has no Python 3.11, and neither has its package archive (it has 3.13); "
            "take a base that has it, such as 'debian:bookworm'",
        ),
        (f"base = 'nvidia/cuda:12.1.1-devel-ubuntu20.04@{DIGEST}'", "(it has 3.8 and 3.9); take a base that has it"),
        (
            "base = 'fedora:40'",
            "4: row 'a': fedora:40 has no apt, with which assay installs Python 3.11; take a base of Debian or Ubuntu, "
            "such as 'debian:bookworm', or one of your own that brings it",
        ),
        ("base = 'nvidia/cuda:12.1.1-devel-ubi8'", "has no apt, with which assay installs Python 3.11"),
        (
            "base = 'rockylinux:9'\ntorch = 'base'\nruntime = 'none'\ntoolkit = 'debian'\n"
            "flash-attn.source = 'compile'",
            'has no apt, with which assay installs the compiler for flash-attn and the toolkit "debian"',
        ),
        # a reason that would never be reached
        (
            "expect = 'reject'\nbecause = { check = 'build.torch', matches = 'x' }\npython = '3.10'",
            "has no Python 3.10",
        ),
    ],
)
def test_one_that_can_never_be_built_is_one_problem_of_the_file(tmp_path: Path, text: str, problem: str) -> None:
    row = ROW.replace('expect = "certify"\n', "") if "expect" in text else ROW
    (line,) = problems(tmp_path, row + text)
    assert problem in line


@pytest.mark.parametrize(
    "text",
    [
        "base = 'ubuntu:22.04'",
        "base = 'ubuntu:22.04'\npython = '3.10'",
        "base = 'nvidia/cuda:12.1.1-devel-ubuntu22.04'\npython = '3.10'",
        f"base = 'debian:bookworm-slim@{DIGEST}'",
        "base = 'fedora:40'\npython = '3.12'\nflash-attn.source = 'wheelhouse'",
        "base = 'fedora:40'\ntorch = 'base'\nruntime = 'none'\nflash-attn.source = 'base'",
        # images of one's own, and names that move: nobody knows
        "base = 'registry.invalid:5000/team/fedora:40'",
        "base = 'fedora-with-python:1'",
        "base = 'ubuntu:latest'\npython = '3.12'",
        "base = 'debian'\npython = '3.12'",
        "base = 'localhost:5000/python:3.10'\npython = '3.10'",
        # a wheel may be found for these
        "flash-attn = { version = '2.7.4', source = 'auto' }",
        "flash-attn = { archs = ['120'] }",
    ],
)
def test_what_may_be_built_is_left_to_the_build(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, ROW + text) == []


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("python", "python = '3.10'"),
        ("python", "base = 'fedora:40'"),
        ("toolkit", "base = 'fedora:40'\npython = '3.12'\ntoolkit = 'debian'"),
    ],
)
def test_a_row_may_be_rejected_because_its_base_cannot_install_a_part(tmp_path: Path, part: str, text: str) -> None:
    reason = f"because = {{ check = 'build.{part}', matches = 'Unable to locate package' }}\n"
    assert problems(tmp_path, REJECT + reason + text) == []


def test_what_the_schema_refused_is_not_judged_by_what_stands_below_it(tmp_path: Path) -> None:
    for text in ("base = 'fedora:'", "base = 'ubuntu:24.04'\npython = 3.12", "base = 'fedora:40'\ntorch = 1"):
        assert len(problems(tmp_path, ROW + text)) == 1


def test_a_base_of_the_defaults_is_named_where_it_stands(tmp_path: Path) -> None:
    lines = problems(tmp_path, "[defaults]\nbase = 'debian:trixie'\n" + ROW + ROW.replace('"a"', '"b"'))
    assert [line.split(": ")[:2] for line in lines] == [["2", "defaults"]], "once for all rows that it is in"


def test_all_of_them_at_once_with_the_exit_code_of_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "matrix.toml"
    texts = ["python = '3.9'", "base = 'fedora:40'", "base = 'x@sha256:abc'", 'what = "a\\nb"']
    rows = [ROW.replace('"a"', f'"r{number}"') + text for number, text in enumerate(texts)]
    file.write_text("\n".join(rows), encoding="utf-8")
    assert main(["plan", "--matrix", str(file)]) == 2
    said = capsys.readouterr().err
    assert re.findall(r"matrix\.toml:(\d+): row", said) == ["4", "8", "12", "16"]
    assert "4 problems in the matrix" in said


@pytest.mark.parametrize(
    ("image", "system"),
    [
        ("debian:bookworm", System(apt=True, pythons=("3.11",))),
        ("debian:12.5-slim", System(apt=True, pythons=("3.11",))),
        ("docker.io/library/debian:bookworm-20240110", System(apt=True, pythons=("3.11",))),
        ("ubuntu:jammy", System(apt=True, pythons=("3.10", "3.11"))),
        (f"ubuntu:24.04@{DIGEST}", System(apt=True, pythons=("3.12",))),
        ("nvidia/cuda:12.1.1-cudnn8-runtime-ubuntu20.04", System(apt=True, pythons=("3.8", "3.9"))),
        ("nvidia/cuda:12.4.1-devel-rockylinux9", System(apt=False, pythons=())),
        ("fedora:39", System(apt=False, pythons=("3.12",))),
        ("fedora", System(apt=False, pythons=())),
        ("rockylinux/rockylinux:10", System(apt=False, pythons=("3.12",))),
        ("rockylinux/rockylinux:10-minimal", None),
        ("redhat/ubi10-minimal", None),
        ("redhat/ubi9-minimal:9.4", System(apt=False, pythons=())),
        ("opensuse/leap:15.6", System(apt=False, pythons=())),
        ("alpine:3.20", System(apt=False, pythons=())),
        ("debian:sid", None),
        ("debian:1", None),
        ("ubuntu:22", None),
        ("ubuntu:25.10", None),
        ("nvidia/cuda:12.1.1-devel", None),
        (f"nvidia/cuda@{DIGEST}", None),
        ("me/fedora:40", None),
        ("python:3.11-bookworm", None),
    ],
)
def test_the_system_that_an_images_name_stands_for(image: str, system: System | None) -> None:
    assert system_of(image) == system


def test_there_is_a_usual_base_for_every_python_that_is_locked() -> None:
    assert [base_with(python) for python in ("3.10", "3.11", "3.12")] == [
        "ubuntu:22.04",
        "debian:bookworm",
        "ubuntu:24.04",
    ]
    assert base_with("3.14") is None
