"""What the project's locks hold, and what they have to say to a row's own requirements."""

from __future__ import annotations

import pytest

from assay import paths, pinned, releases
from assay.errors import IngredientError
from assay.pinned import Locked
from assay.requirements import Pin

A, B = "a" * 64, "b" * 64
SOURCE = paths.docker_dir() / pinned.FLASH_ATTN / "source"


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
    ((line, message),) = pinned.conflicts([own], HELD, flash_attn="auto")
    assert line == 7
    assert told in message


def test_the_same_version_and_what_no_lock_holds_are_fine() -> None:
    own = [pin("numpy", "1.26.4", B, "c" * 64), pin("bottle", "0.13.4", A)]
    assert list(pinned.conflicts(own, HELD, flash_attn="auto")) == []


@pytest.mark.parametrize("source", ["auto", "none"])
def test_a_flash_attn_that_no_check_would_ask_for_is_refused(source: str) -> None:
    ((_, message),) = pinned.conflicts([pin("flash-attn", "2.8.3", A)], {}, flash_attn=source)
    assert message.startswith("which flash-attn goes into the image is said by the row's `flash-attn`")
    assert ("no check asks for it" in message) is (source == "none")


def test_the_projects_locks_are_read_whole() -> None:
    locks = pinned.python_locks(
        releases.load().torch("2.4.0+cu121"), python="3.11", runtime="newbie", flash_attn="auto"
    )
    held = pinned.locked(locks.values())
    assert {"torch", "numpy", "diffusers", "einops", "nvidia-nvjitlink-cu12"} <= set(held)
    assert held["diffusers"].lock == "torch-2.4.0-cu121/runtime-py3.11.txt"
    assert all(one.pin.hashes for one in held.values())
    assert pinned.python_locks(None, python="3.11", runtime="newbie", flash_attn="none") == {}


def test_a_lock_that_is_missing_says_how_to_write_it() -> None:
    with pytest.raises(IngredientError, match=r"nowhere\.txt is not in .*nox -s lock"):
        pinned.locked(["nowhere.txt"])


def test_the_sdist_is_the_one_that_its_requirements_file_pins() -> None:
    (version,) = (path.stem.removeprefix("sdist-") for path in SOURCE.glob("sdist-*.txt"))
    assert f"--hash=sha256:{pinned.sdist_sha256(version)}" in (SOURCE / f"sdist-{version}.txt").read_text()
    with pytest.raises(IngredientError, match=r"'9\.9' cannot be compiled: .*sdist-9\.9\.txt is missing"):
        pinned.sdist_sha256("9.9")
