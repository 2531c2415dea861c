"""Build contexts are packed the same every time, and image layers are counted once."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from assay.engine.context import FIXED_TIME, pack
from assay.engine.layers import Layer, layers_of, together
from assay.errors import IngredientError


def packed(folder: Path) -> bytes:
    out = io.BytesIO()
    pack(folder, out)
    return out.getvalue()


def fill(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "b").write_text("b", encoding="utf-8")
    (folder / "a").write_text("a", encoding="utf-8")
    (folder / "tool").write_text("#!", encoding="utf-8")
    (folder / "tool").chmod(0o700)
    (folder / "link").symlink_to("a")
    return folder


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "one"), fill(tmp_path / "two")
    os.utime(second / "a", (1.5, 2.5))
    (second / "a").chmod(0o600)
    os.link(second / "tool", second / "zz")
    (second / "zz").unlink()
    assert packed(first) == packed(second)


def test_the_archive_is_sorted_owned_by_root_and_starts_with_no_pax_header(tmp_path: Path) -> None:
    data = packed(fill(tmp_path / "one"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == ["a", "link", "sub", "sub/b", "tool"]
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in members} == {(0, 0, "", FIXED_TIME)}
    assert [oct(member.mode) for member in members] == ["0o644", "0o777", "0o755", "0o644", "0o755"]
    assert b"PaxHeader" not in data


def test_hard_links_are_packed_as_files(tmp_path: Path) -> None:
    folder = fill(tmp_path / "one")
    os.link(folder / "a", folder / "c")
    with tarfile.open(fileobj=io.BytesIO(packed(folder))) as archive:
        assert archive.getmember("c").isfile()


def test_something_else_than_files_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IngredientError, match="pipe: a build context holds only"):
        packed(tmp_path)


def entry(created_by: str, size: int) -> dict[str, object]:
    return {"CreatedBy": created_by, "Size": size}


def test_sizes_find_their_layers_past_entries_without_one() -> None:
    oldest_first = [
        entry("", 100),  # an import tells no command
        entry("ENV A=1", 0),
        entry("WORKDIR /work", 0),
        entry('/bin/sh -c #(nop)  CMD ["x"]', 0),
        entry("RUN make", 50),
        entry("RUN true", 0),
        entry("COPY x /x", 7),
    ]
    history = oldest_first[::-1]
    assert [layer.size for layer in layers_of(history, ["a", "w", "m", "t", "c"])] == [100, 0, 50, 0, 7]
    assert [layer.size for layer in layers_of(history, ["a", "w", "m", "c"])] == [100, 0, 50, 7]
    assert [layer.size for layer in layers_of(history, ["a", "m", "c"])] == [100, 50, 7]
    assert [layer.size for layer in layers_of(history[-1:], ["a", "b"])] == [100, 0]


def test_a_layer_is_shared_only_on_the_same_layers_below() -> None:
    base, other, top = Layer(diff_id="b", size=10), Layer(diff_id="o", size=20), Layer(diff_id="t", size=5)
    assert together([[base, top], [base, top]]) == 15
    assert together([[base, top], [base, other]]) == 35
    assert together([[base, top], [other, top]]) == 40
    assert together([]) == 0
