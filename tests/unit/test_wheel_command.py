"""`assay wheel`: which rows get a wheel, what lies in the folder then, and that other machines take it from there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from row_wheels import made, numbered
from wheel_factory import wheel

from assay import cli, wheels
from assay.base import BaseImage
from assay.commands import wheel as command
from assay.errors import BuildFailed, Cancelled, EngineError, ExitCode, IngredientError
from assay.files import file_sha256
from assay.matrix import load
from assay.matrix.row import FlashAttn, Row
from assay.wheels import lean
from assay.wheels import wheel as wheel_file
from assay.wheels.collect import left_out
from assay.wheels.wheelhouse import Store

ROOT = Path(__file__).parents[2]
DEFAULT = load(ROOT / "matrix.toml")
MATRIX = ["--matrix", str(ROOT / "matrix.toml")]
ROW = Row(id="cu121", expect="certify")

Compiler = Callable[..., wheels.Wheel]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep wheels in a folder of the test's own, and let nobody reach an engine."""
    folder = tmp_path / "state"
    monkeypatch.setenv("ASSAY_STATE", str(folder))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/gone.sock")
    return folder


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a compiler in place of the engine's; return the rows that it compiles for, as they come."""
    rows: list[str] = []
    put_compiler(monkeypatch, lambda row, **_: rows.append(row.id) or made(tmp_path / "made" / row.id, row))  # type: ignore[func-returns-value]
    return rows


def put_compiler(monkeypatch: pytest.MonkeyPatch, compiler: Compiler) -> None:
    monkeypatch.setattr(command.Engine, "connect", lambda **_: object())
    monkeypatch.setattr(command.base, "ensure", lambda *_, **__: None)
    monkeypatch.setattr(command.wheels, "provide", compiler)


def run(out: Path, *arguments: str) -> int:
    return cli.main(["wheel", *MATRIX, "--out", str(out), *arguments])


def test_rows_that_need_no_wheel_or_must_not_get_one_are_left_out() -> None:
    why = {row.id: left_out(row) for row in DEFAULT.rows}
    assert {row for row, reason in why.items() if reason is None} == {
        "cu121",
        "cu120-on-library-path",
        "cu120",
        "cu122",
    }
    assert why["cu118-compile"] == "it is meant to fail at build.flash-attn"
    assert "no kernels" in str(why["no-kernels"])
    for source in ("none", "base"):
        assert left_out(replace(ROW, flash_attn=FlashAttn(source=source))) is not None  # type: ignore[arg-type]
    assert {left_out(row) for row in load(ROOT / "matrix.gpu-host.toml").rows} == {"its base image brings flash-attn"}


def test_rows_that_ask_for_the_same_get_one_wheel_and_each_takes_it_from_there(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "house") == ExitCode.AS_EXPECTED
    said = capsys.readouterr()
    (path,) = (tmp_path / "house").glob("*.whl")
    assert said.out.splitlines() == [f"{row}: {path}" for row in ("cu121", "cu120-on-library-path", "cu120", "cu122")]
    assert "cu118-compile is left out: it is meant to fail" in said.err
    # On another machine, which has only the folder.
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path / "elsewhere"))
    for row in DEFAULT.rows:
        found = wheels.lookup(row, wheelhouses=[tmp_path / "house"])
        if left_out(row) is None:
            assert found is not None
            assert (found.path, found.source, found.compiler) == (path, "wheelhouse", "nvcc 12.4.131")
        else:
            assert found is None, "a row that must fail, or be without kernels, gets no wheel that works"


def test_a_wheel_that_is_there_and_is_the_rows_own_is_not_made_again(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path / "house", "--row", "cu121") == ExitCode.AS_EXPECTED
    assert run(tmp_path / "house", "--row", "cu120") == ExitCode.AS_EXPECTED
    assert compiled == ["cu121"]
    monkeypatch.setattr(lean, "files_digest", lambda _docker: "another builder stage")
    assert run(tmp_path / "house", "--row", "cu121") == ExitCode.AS_EXPECTED
    assert compiled == ["cu121", "cu121"]
    (record,) = (tmp_path / "house").glob("*.json")
    assert json.loads(record.read_text())["key"] == lean.recipe(DEFAULT.select(["cu121"])[0]).key()


def test_another_recipe_that_gives_other_bytes_leaves_both_wheels_and_the_row_takes_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_now: list[str] = []

    def compiler(row: Row, **_: Any) -> wheels.Wheel:
        recipe = lean.recipe(row)
        path = wheel(tmp_path / "made", version=recipe.version)
        with path.open("ab") as file:
            file.write(recipe.key().encode())  # behind the archive's end: read by nobody
        made_now.append(recipe.key())
        return Store(tmp_path / "store").add(recipe.key(), path, source=recipe.source, record=recipe.record())

    put_compiler(monkeypatch, compiler)
    assert run(tmp_path / "house", "--row", "cu121") == ExitCode.AS_EXPECTED
    monkeypatch.setattr(lean, "files_digest", lambda _docker: "another builder stage")
    assert run(tmp_path / "house", "--row", "cu121") == ExitCode.AS_EXPECTED
    assert len({*made_now}) == 2
    assert len([*(tmp_path / "house").glob("*.whl")]) == 2
    found = wheels.lookup(DEFAULT.select(["cu121"])[0], wheelhouses=[tmp_path / "house"])
    assert found is not None
    assert found.record["key"] == made_now[1]


def test_a_wheelhouse_goes_before_the_compiler(tmp_path: Path, compiled: list[str]) -> None:
    given = wheel(tmp_path / "given")
    assert run(tmp_path / "house", "--row", "cu121", "--wheelhouse", str(given.parent)) == ExitCode.AS_EXPECTED
    assert compiled == []
    assert file_sha256(tmp_path / "house" / given.name) == file_sha256(given)


def test_without_an_engine_nothing_is_compiled_and_what_is_there_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = wheel(tmp_path / "given")
    assert run(tmp_path / "house", "--wheelhouse", str(given.parent)) == ExitCode.AS_EXPECTED
    capsys.readouterr()
    assert run(tmp_path / "other") == ExitCode.INCONCLUSIVE
    assert "gone.sock" in capsys.readouterr().err


def test_a_compile_that_fails_says_why_is_not_tried_twice_and_stops_no_other_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = tmp_path / "matrix.toml"
    matrix.write_text(
        "[[row]]\nid = 'a'\nexpect = 'certify'\n[[row]]\nid = 'b'\nexpect = 'certify'\n"
        "[[row]]\nid = 'c'\nexpect = 'certify'\nflash-attn.head-dims = [64]\n"
    )
    tried: list[str] = []

    def compiler(row: Row, *, out: Path, **_: Any) -> wheels.Wheel:
        tried.append(row.id)
        if row.id == "a":
            (out / "a").mkdir(parents=True)
            (out / "a" / "flash-attn.log").write_text("everything that the compiler said")
            raise BuildFailed(part="flash-attn", step="RUN build.py", log=["no room for https://bob:s3cret@h.invalid/"])
        return made(tmp_path / "made", row)

    put_compiler(monkeypatch, compiler)
    out = tmp_path / "house"
    assert cli.main(["wheel", "--matrix", str(matrix), "--out", str(out)]) == ExitCode.INCONCLUSIVE
    said = capsys.readouterr()
    assert tried == ["a", "c"]
    assert [line.partition(":")[0] for line in said.out.splitlines()] == ["c"]
    assert "no room for https://****@h.invalid/" in said.err
    assert "it asks for the same wheel as a" in said.err
    assert "no wheel for a, b: see above" in said.err
    assert (out / "a.log").read_text() == "everything that the compiler said"
    assert "s3cret" not in said.err


@pytest.mark.parametrize("error", [EngineError("the engine died"), IngredientError("no such base")])
def test_trouble_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> wheels.Wheel:
        raise error

    put_compiler(monkeypatch, fail)
    assert run(tmp_path / "house", "--row", "cu121") == ExitCode.INCONCLUSIVE
    assert str(error) in capsys.readouterr().err


def test_an_interruption_keeps_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(row: Row, *, cancel: Any, **_: Any) -> wheels.Wheel:
        os.kill(os.getpid(), signal.SIGINT)
        assert cancel.wait(10)
        raise Cancelled("cancelled while a wheel was being built")

    put_compiler(monkeypatch, interrupted)
    assert run(tmp_path / "house") == ExitCode.INTERRUPTED
    assert "the next run goes on from there" in capsys.readouterr().err


def test_a_row_on_a_base_with_torch_gets_no_neighbours_wheel_and_finds_its_own_once_the_base_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = tmp_path / "matrix.toml"
    from_base = "expect = 'certify'\ntorch = 'base'\ntoolkit = 'base'\nruntime = 'none'\n"
    matrix.write_text(
        "".join(f"[[row]]\nid = '{name}'\nbase = 'image:{name}'\n{from_base}" for name in ("a", "b"))
        + "[[row]]\nid = 'plain'\nexpect = 'certify'\n"
    )
    digests = {"image:a": "sha256:1", "image:b": "sha256:2"}
    compiled: list[str] = []

    def compiler(row: Row, **_: Any) -> wheels.Wheel:
        compiled.append(row.id)
        number = f"{row.id}{len(compiled)}"
        return numbered(tmp_path / number, row, digests.get(row.base), text=number)

    put_compiler(monkeypatch, compiler)
    monkeypatch.setattr(
        command.base, "held", lambda _engine, ref: BaseImage(ref=ref, id="sha256:0", digest=digests[ref])
    )
    out = tmp_path / "house"

    def make(row: str, *arguments: str) -> wheels.Wheel:
        asked = ["wheel", "--matrix", str(matrix), "--row", row, *arguments]
        assert cli.main(asked) == ExitCode.AS_EXPECTED
        path = Path(capsys.readouterr().out.strip().partition(": ")[2])
        return wheel_file.read(path, source="wheelhouse")

    first = {row: make(row, "--out", str(out)) for row in ("plain", "a", "b")}
    assert compiled == ["plain", "a", "b"]
    assert len({one.path for one in first.values()}) == 3
    assert {row: make(row, "--out", str(out)).sha256 for row in ("b", "plain", "a")} == {
        row: one.sha256 for row, one in first.items()
    }
    assert compiled == ["plain", "a", "b"]
    given = make("b", "--wheelhouse", str(out), "--out", str(tmp_path / "other"))
    assert given.sha256 == first["b"].sha256
    digests["image:a"] = "sha256:3"
    assert make("a", "--wheelhouse", str(out), "--out", str(tmp_path / "other")).record["base_digest"] == "sha256:3"
    assert compiled == ["plain", "a", "b", "a"]
