"""A folder that collects wheels: what lies in it side by side, what is replaced, and what a row takes from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from row_wheels import made, numbered
from wheel_factory import wheel

from assay import wheels
from assay.files import file_sha256, write_json
from assay.matrix.row import FlashAttn, Row
from assay.wheels import lean
from assay.wheels import wheel as wheel_file
from assay.wheels.collect import Collection

ROW = Row(id="cu121", expect="certify")


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep wheels in a folder of the test's own."""
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path / "state"))


def test_two_wheels_of_one_name_lie_side_by_side_and_each_row_finds_its_own(tmp_path: Path) -> None:
    """A wheel's name says nothing of the torch that it was compiled against."""
    rows = [replace(ROW, id=name, torch="base", base=f"image@sha256:{name}") for name in ("a", "b", "c")]
    collection = Collection(tmp_path / "house")
    (tmp_path / "house").mkdir()
    placed = {row.id: collection.add(numbered(tmp_path / row.id, row)) for row in rows[:2]}
    assert collection.add(numbered(tmp_path / "a", rows[0])) == placed["a"]
    assert len({*placed.values()}) == 2
    assert placed["b"].name == placed["a"].name.replace("-cp311-", "-2-cp311-", 1)
    for row in rows[:2]:
        found = wheels.lookup(row, wheelhouses=[tmp_path / "house"])
        assert found is not None
        assert found.path == placed[row.id]
    assert wheels.lookup(rows[2], wheelhouses=[tmp_path / "house"]) is None, "compiled against another image's torch"


def test_what_an_earlier_run_left_is_replaced_with_its_record(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    released = numbered(tmp_path / "a", ROW)
    Collection(house).add(replace(released, record={"sha256": released.sha256, "url": "https://host.invalid/"}))
    plain = wheel(tmp_path / "plain", version=lean.recipe(ROW).version)
    path = Collection(house).add(wheel_file.read(plain, source="wheelhouse"))
    assert sorted(file.name for file in house.iterdir()) == [plain.name]
    assert wheel_file.read(path, source="wheelhouse").record == {}


def test_another_recipes_wheel_of_an_earlier_run_stays(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    one, other = (numbered(tmp_path / name, replace(ROW, id=name, python=name)) for name in ("3.11", "3.12"))
    plain = wheel_file.read(wheel(tmp_path / "plain", version=one.version), source="wheelhouse")
    made_again = tmp_path / "again" / one.path.name
    made_again.parent.mkdir()
    made_again.write_bytes(one.path.read_bytes() + b"a compile gives other bytes each time")
    write_json(wheel_file.record_path(made_again), {**one.record, "sha256": file_sha256(made_again)})
    again = wheel_file.read(made_again, source="compile")
    first, second, third = (Collection(house).add(one) for one in (one, other, plain))
    assert (Collection(house).add(other), Collection(house).add(plain)) == (second, third), "no third and fourth file"
    assert Collection(house).add(again) == first, "its own recipe's is replaced"
    held = {path: wheel_file.read(path, source="wheelhouse") for path in house.glob("*.whl")}
    assert {path: one.sha256 for path, one in held.items()} == {
        first: again.sha256,
        second: other.sha256,
        third: plain.sha256,
    }
    assert [held[path].record.get("key") for path in (first, second, third)] == [
        one.record["key"],
        other.record["key"],
        None,
    ]


def test_a_damaged_wheel_is_replaced_whatever_its_record_says(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    path = Collection(house).add(numbered(tmp_path / "a", ROW))
    with path.open("ab") as file:
        file.write(b"more")
    other = numbered(tmp_path / "b", replace(ROW, python="3.12"))
    assert Collection(house).add(other) == path
    assert wheel_file.read(path, source="wheelhouse").record["key"] == other.record["key"]


@pytest.mark.parametrize("rows_own", [True, False])
def test_a_row_that_has_to_be_compiled_takes_from_a_wheelhouse_only_its_own_recipes_wheel(
    tmp_path: Path, rows_own: bool
) -> None:
    row = replace(ROW, flash_attn=FlashAttn(source="compile"))
    made_from = row if rows_own else replace(row, flash_attn=replace(row.flash_attn, nvcc="11.8"))
    (tmp_path / "house").mkdir()
    path = Collection(tmp_path / "house").add(made(tmp_path / "made", made_from))
    found = wheels.lookup(row, wheelhouses=[tmp_path / "house"])
    assert (found.path if found else None) == (path if rows_own else None)
