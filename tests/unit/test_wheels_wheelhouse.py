"""Which wheel of a wheelhouse fits a row, why the others do not, and the store of wheels once made."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from wheel_factory import NEW_ABI, fatbin, kernel_names, shared_object, wheel

from assay.errors import Cancelled, IngredientError
from assay.matrix.row import FlashAttn
from assay.wheels import wheel as wheel_file
from assay.wheels.wheelhouse import Store, Target, choose, misfits

TARGET = Target(python="cp311", flash_attn=FlashAttn(), torch="2.4.0+cu121", cuda_major=12, cxx11_abi=False)


def test_the_wheel_that_fits_is_chosen_and_the_others_say_why_not(tmp_path: Path) -> None:
    fits = wheel(tmp_path)
    other = shared_object(needed=["libcudart.so.13"], undefined=[NEW_ABI], device_code=fatbin(["90"]))
    wheel(tmp_path, version="2.8.2", tags="cp312-cp312-linux_x86_64", library=other)
    choice = choose([tmp_path], TARGET)
    assert choice.wheel is not None
    assert choice.wheel.path == fits
    assert choice.wheel.source == "wheelhouse"
    (why,) = choice.passed_over
    for reason in (
        "is version 2.8.2, not 2.8.3",
        "is for cp312, not cp311",
        "needs libcudart.so.13, and 2.4.0+cu121 brings CUDA 12",
        "is built for the C++11 ABI, and torch 2.4.0+cu121 has the pre-C++11 ABI",
        "holds no machine code for sm_80 (it holds sm_90)",
    ):
        assert reason in why


@pytest.mark.parametrize(
    ("change", "library", "reason"),
    [
        ({}, b"", "holds no compiled extension"),
        ({"tags": "py3-none-any"}, None, "is for py3, not cp311"),
        ({"version": "2.8.3+cu12torch2.5cxx11abiFALSE"}, None, "was compiled against torch 2.5, not 2.4.0+cu121"),
        ({"version": "2.8.3+cu12torch2.4cxx11abiFALSE"}, None, None),
        ({}, shared_object(names=kernel_names([64, 96])), "lacks the kernel fwd head dim 128 bf16 and 7 more"),
        (
            {},
            shared_object(names=kernel_names(directions=["fwd"])),
            "lacks the kernel fwd-split head dim 64 bf16 and 11",
        ),
        ({}, shared_object(names=b"renamed\0"), None),  # nothing is known then, and the checks decide
        ({}, shared_object(undefined=[]), None),
        ({}, shared_object(device_code=b""), "holds no machine code for sm_80 (it holds none)"),
    ],
)
def test_each_rule(tmp_path: Path, change: dict[str, str], library: bytes | None, reason: str | None) -> None:
    read = wheel_file.read(wheel(tmp_path, library=library, **change), source="wheelhouse")
    reasons = misfits(read, TARGET)
    if reason is None:
        assert reasons == ()
    else:
        assert any(reason in given for given in reasons), reasons


@pytest.mark.parametrize(("held", "asked", "fits"), [("80", "86", True), ("80", "90", False), ("86", "80", False)])
def test_machine_code_runs_on_its_own_major_version_from_its_minor_on(
    tmp_path: Path, held: str, asked: str, fits: bool
) -> None:
    read = wheel_file.read(wheel(tmp_path, library=shared_object(device_code=fatbin([held]))), source="wheelhouse")
    target = replace(TARGET, flash_attn=FlashAttn(archs=(asked,)))
    assert (misfits(read, target) == ()) is fits


def test_a_torch_that_nobody_has_looked_at_decides_nothing(tmp_path: Path) -> None:
    library = shared_object(needed=["libcudart.so.13"], undefined=[NEW_ABI])
    read = wheel_file.read(wheel(tmp_path, library=library), source="wheelhouse")
    assert misfits(read, Target(python="cp311", flash_attn=FlashAttn())) == ()


LATEST = {"torch": "base", "base": "my/torch:latest", "base_digest": "sha256:1"}


@pytest.mark.parametrize(
    ("record", "digest", "reason", "as_given"),
    [
        ({}, "sha256:1", None, None),
        ({}, None, None, None),
        ({"url": "https://host.invalid/x.whl"}, "sha256:1", None, None),
        (LATEST, "sha256:1", None, None),
        (LATEST, "sha256:2", "when that was sha256:1, which is sha256:2 now", None),
        (LATEST, None, "when that was sha256:1, and nobody knows yet whether it still is that", None),
        ({**LATEST, "base_digest": None}, "sha256:1", "its record does not say which image that was", None),
        ({**LATEST, "base": "my/torch:1"}, "sha256:1", *["the torch of my/torch:1, not of my/torch:latest"] * 2),
        ({"torch": "2.4.0+cu121", "base": "debian:bookworm"}, "sha256:1", "torch 2.4.0+cu121, not against", None),
    ],
)
def test_a_torch_of_the_base_is_known_by_its_image(
    tmp_path: Path, record: dict[str, object], digest: str | None, reason: str | None, as_given: str | None
) -> None:
    """as_given: what is wrong with the wheel for a row that takes nothing but what somebody put into a wheelhouse."""
    read = replace(wheel_file.read(wheel(tmp_path), source="wheelhouse"), record=record)
    for source, wrong in (("auto", reason), ("compile", reason), ("wheelhouse", as_given)):
        asked = FlashAttn(source=source)  # type: ignore[arg-type]
        target = Target(python="cp311", flash_attn=asked, base="my/torch:latest", base_digest=digest)
        said = misfits(read, target)
        assert wrong in said[0] if wrong else said == (), (source, said)


def test_folders_are_asked_in_their_order(tmp_path: Path) -> None:
    second = wheel(tmp_path / "second")
    first = wheel(tmp_path / "first", version="2.8.3+local")
    assert choose([tmp_path / "first", tmp_path / "second"], TARGET).wheel.path == first
    first.unlink()
    assert choose([tmp_path / "first", tmp_path / "second"], TARGET).wheel.path == second


def test_a_damaged_wheel_is_passed_over_and_named(tmp_path: Path) -> None:
    wheel(tmp_path).write_bytes(b"PK half a wheel")
    choice = choose([tmp_path], TARGET)
    assert choice.wheel is None
    assert "damaged wheel" in choice.passed_over[0]


def flip_a_bit_of_deflated_data(path: Path) -> None:
    """Make the first block of the first member one of a kind that does not exist."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flash_attn/__init__.py", "x" * 5000)
    content = bytearray(path.read_bytes())
    content[30 + len("flash_attn/__init__.py")] |= 0b110
    path.write_bytes(content)


def call_it_encrypted(path: Path) -> None:
    """Set the flag of an encrypted member, in its own header and in the archive's directory."""
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit_of_deflated_data, call_it_encrypted])
def test_damage_inside_the_archive_stops_no_row_either(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    good = wheel(tmp_path, version="2.8.3+good")
    damage(wheel(tmp_path))
    choice = choose([tmp_path], TARGET)
    assert choice.wheel is not None
    assert choice.wheel.path == good
    store = Store(tmp_path / "store")
    (tmp_path / "store/key").mkdir(parents=True)
    damage(wheel(tmp_path / "store/key"))
    assert store.get("key", source="release") is None
    assert not (tmp_path / "store/key").exists()
    with pytest.raises(IngredientError, match=r"damaged wheel.*delete it"):
        wheel_file.read(tmp_path / "flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl", source="wheelhouse")


def test_a_record_that_comes_later_is_read(tmp_path: Path) -> None:
    path = wheel(tmp_path)
    before = wheel_file.read(path, source="wheelhouse")
    assert before.compiler is None
    record = {"sha256": before.sha256, "compiler": "nvcc 12.4.131"}
    wheel_file.record_path(path).write_text(json.dumps(record), encoding="utf-8")
    assert wheel_file.read(path, source="wheelhouse").compiler == "nvcc 12.4.131"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IngredientError, match="no such wheelhouse folder"):
        choose([tmp_path / "absent"], TARGET)


def test_files_are_hashed_without_the_record_that_installers_rewrite(tmp_path: Path) -> None:
    read = wheel_file.read(wheel(tmp_path), source="wheelhouse")
    assert set(read.files) == {
        "flash_attn/__init__.py",
        "flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so",
        "flash_attn-2.8.3.dist-info/METADATA",
    }
    assert all(len(digest) == 64 for digest in read.files.values())


def test_a_kept_wheel_comes_back_with_its_record(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made = wheel(tmp_path / "made", version="2.8.3+assay.hd96")
    added = store.add("k" * 64, made, source="compile", record={"compiler": "nvcc 12.4.131, g++ 12.2.0"})
    got = store.get("k" * 64, source="compile")
    assert got == added
    assert got.compiler == "nvcc 12.4.131, g++ 12.2.0"
    record = json.loads(wheel_file.record_path(got.path).read_text(encoding="utf-8"))
    assert record["sha256"] == got.sha256
    assert record["files"] == got.files
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["k" * 64]


def test_a_kept_wheel_that_was_changed_is_thrown_away(tmp_path: Path) -> None:
    store = Store(tmp_path)
    added = store.add("key", wheel(tmp_path / "made"), source="compile", record={})
    with added.path.open("ab") as file:
        file.write(b"\0")
    assert store.get("key", source="compile") is None
    assert not (tmp_path / "key").exists()


def test_the_second_waits_while_the_first_makes_a_wheel(tmp_path: Path) -> None:
    store, made = Store(tmp_path / "store"), wheel(tmp_path / "made")
    builds: list[str] = []
    waited: list[str] = []
    inside, waiting = threading.Event(), threading.Event()

    def provide(name: str) -> None:
        with store.making("key", on_wait=lambda: (waited.append(name), waiting.set())):
            if store.get("key", source="compile") is None:
                inside.set()
                assert waiting.wait(10)
                builds.append(name)
                store.add("key", made, source="compile", record={})

    first = threading.Thread(target=provide, args=("first",))
    first.start()
    assert inside.wait(5)
    provide("second")
    first.join()
    assert builds == ["first"]
    assert waited == ["second"]


def test_waiting_ends_when_the_run_is_cancelled(tmp_path: Path) -> None:
    store, cancel = Store(tmp_path), threading.Event()
    cancel.set()
    with (
        store.making("key", on_wait=pytest.fail),
        pytest.raises(Cancelled, match="cancelled"),
        store.making("key", on_wait=lambda: None, cancel=cancel),
    ):
        pytest.fail("two held the same key")
