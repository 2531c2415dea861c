"""Requirements of a row's own: what a line has to be, and what the row's locks have to say to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay import pinned, releases, requirements
from assay.errors import IngredientError
from assay.requirements import Locked, Pin

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


def pin(name: str, version: str, *hashes: str) -> Pin:
    return Pin(name=name, version=version, hashes=hashes, line=7)


HELD = {
    name: Locked(pin=pin(name, version, A, B), lock="torch-2.4.0-cu121/torch-py3.11.txt")
    for name, version in (("torch", "2.4.0"), ("numpy", "1.26.4"), ("nvidia-cublas-cu12", "12.1.3.1"))
}


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (
            pin("torch", "2.5.0", A),
            "torch 2.5.0 conflicts with torch 2.4.0 of the row's own lock docker/locks/torch-2.4.0",
        ),
        (pin("numpy", "2.0.0", A), "numpy 2.0.0 conflicts with numpy 1.26.4"),
        (pin("nvidia-cublas-cu12", "12.4.5.8", A), "conflicts with nvidia-cublas-cu12 12.1.3.1"),
        (pin("numpy", "1.26.4", "c" * 64), "numpy 1.26.4 has other hashes than in the row's own lock"),
        (pin("flash-attn", "2.8.3", A), "which flash-attn goes into the image is said by the row's `flash-attn`"),
    ],
)
def test_what_contradicts_the_rows_own_locks_is_told_with_both_versions(own: Pin, told: str) -> None:
    ((line, message),) = requirements.conflicts([own], HELD, flash_attn="auto")
    assert line == 7
    assert told in message


def test_the_same_version_and_what_no_lock_holds_are_fine() -> None:
    own = [pin("numpy", "1.26.4", B, "c" * 64), pin("bottle", "0.13.4", A)]
    assert list(requirements.conflicts(own, HELD, flash_attn="auto")) == []


@pytest.mark.parametrize("source", ["auto", "none"])
def test_a_flash_attn_that_no_check_would_ask_for_is_refused(source: str) -> None:
    ((_, message),) = requirements.conflicts([pin("flash-attn", "2.8.3", A)], {}, flash_attn=source)
    assert message.startswith("which flash-attn goes into the image is said by the row's `flash-attn`")
    assert ("no check asks for it" in message) is (source == "none")


def test_the_projects_locks_are_read_whole() -> None:
    locks = pinned.python_locks(
        releases.load().torch("2.4.0+cu121"), python="3.11", runtime="newbie", flash_attn="auto"
    )
    held = requirements.locked(locks.values())
    assert {"torch", "numpy", "diffusers", "einops", "nvidia-nvjitlink-cu12"} <= set(held)
    assert held["diffusers"].lock == "torch-2.4.0-cu121/runtime-py3.11.txt"
    assert all(one.pin.hashes for one in held.values())
    assert pinned.python_locks(None, python="3.11", runtime="newbie", flash_attn="none") == {}


def test_a_lock_that_is_missing_says_how_to_write_it() -> None:
    with pytest.raises(IngredientError, match=r"nowhere\.txt is not in .*nox -s lock"):
        requirements.locked(["nowhere.txt"])
