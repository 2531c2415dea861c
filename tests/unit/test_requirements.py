"""Pinned requirements: what a line has to be, and what is said of one that is something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay import requirements
from assay.requirements import Pin

A, B = "a" * 64, "b" * 64
HASH = f"--hash=sha256:{A}"


def read(tmp_path: Path, content: str) -> requirements.RequirementsFile:
    path = tmp_path / "requirements.txt"
    path.write_text(content, encoding="utf-8")
    return requirements.read(path)


def test_what_a_lock_tool_writes_is_read(tmp_path: Path) -> None:
    content = f"""\
# a comment
Zope.Interface_x==1.0rc1 \\
    {HASH} \\
    --hash=sha256:{B}
    # via something
uvicorn[standard] == 0.30.1 {HASH}  # on one line

"""
    file = read(tmp_path, content)
    assert file.problems == ()
    assert file.pins == (
        Pin(name="zope-interface-x", version="1.0rc1", hashes=(A, B), line=2),
        Pin(name="uvicorn", version="0.30.1", hashes=(A,), line=6),
    )
    again = read(tmp_path, requirements.text(file.pins))
    assert [(pin.name, pin.version, pin.hashes) for pin in again.pins] == [
        (pin.name, pin.version, pin.hashes) for pin in file.pins
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("requests", "'requests' is not pinned to one version: write NAME==VERSION --hash=sha256:"),
        (f"requests>=2 {HASH}", "'requests>=2' is not pinned to one version"),
        (f"requests==2.* {HASH}", "'requests==2.*' is not pinned to one version"),
        (f"requests==two {HASH}", "'requests==two' is not pinned to one version"),
        (f"requests===2 {HASH}", "'requests===2' is not pinned to one version"),
        (f"requests==2,!=2.1 {HASH}", "is not pinned to one version"),
        ("requests==2", "'requests==2' has no hash: add --hash=sha256:..."),
        ("requests==2 --hash=sha256:abc", "'--hash=sha256:abc' is no hash that is taken here"),
        (f"requests==2 --hash=md5:{A[:32]}", "is no hash that is taken here: write --hash=sha256:"),
        (f"requests==2 ; python_version < '3' {HASH}", "has a condition: lock for the row's Python alone"),
        (f"requests==2 {HASH} --no-deps", "'--no-deps': a row's requirements are packages with == and --hash"),
        (f"requests @ https://me:secret@host.invalid/x.whl {HASH}", "a package by its address: write NAME==VERSION"),
        ("./local.whl", "'./local.whl' is not pinned"),
        ("-r other.txt", "'-r': a row's requirements are packages with == and --hash, without options"),
        ("-e .", "'-e': a row's requirements"),
        ("--index-url=https://me:secret@host.invalid/", "'--index-url': packages come from the index that this"),
        ("--extra-index-url https://me:secret@host.invalid/", "'--extra-index-url': packages come from the index"),
    ],
)
def test_a_bad_line_gets_one_message_with_its_number(tmp_path: Path, line: str, told: str) -> None:
    file = read(tmp_path, f"good==1 {HASH}\n\n{line}\n")
    ((number, message),) = file.problems
    assert number == 3
    assert told in message
    assert "secret" not in message
    assert len(message) < 200


def test_every_bad_line_is_told_at_once_and_a_bad_hash_on_its_own_line(tmp_path: Path) -> None:
    file = read(tmp_path, f"one\ntwo==2 \\\n    {HASH} \\\n    --hash=sha256:x\nTwo==3 {HASH}\n")
    assert [line for line, _ in file.problems] == [1, 4, 5]
    assert file.problems[-1][1] == "two stands in line 2 already: keep one of them"


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes(b"# ok\n# gr\xfc\xdfe\n")
    assert requirements.read(path).problems == ((2, "no UTF-8: save the file in that encoding"),)
