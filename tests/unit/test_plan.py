"""`assay plan`: everything that a row says, in whatever width there is, and for GitHub Actions."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from rich.console import Console

from assay import cli
from assay.commands.plan_table import FIELDS, table
from assay.errors import ExitCode
from assay.matrix import load
from assay.matrix.row import FlashAttn, Reason, Row

ROOT = Path(__file__).parents[2]
ROWS = load(ROOT / "matrix.toml").rows


def shown(rows: tuple[Row, ...], width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(table(rows, width))
    return console.file.getvalue().splitlines()


def test_what_differs_is_a_column_and_what_is_shared_is_said_once():
    lines = shown(ROWS, 160)
    head = lines[0]
    assert all(name in head for name in ("row", "expected", "CUDA", "library path", "flash-attn", "tags"))
    assert not any(name in head for name in ("torch", "python", "GPUs", "runner", "level"))
    text = " ".join(" ".join(lines).split())
    for said in ("torch 2.4.0+cu121", "python 3.11", "GPUs A100", "publish level gpu", "runner ubuntu-latest"):
        assert text.count(said) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": "3.12"}, "python 3.12"),
        ({"gpus": ("H100", "A100")}, "GPUs H100, A100"),
        ({"runner": ("self-hosted", "gpu")}, "runner self-hosted, gpu"),
        ({"tags": ("latest", "stable")}, "tags latest, stable"),
        ({"env": (("A", "1"),)}, "env A=1"),
        ({"files": (("/opt/x/a.py", "b.py"),)}, "files a.py"),
        ({"runtime": "none"}, "runtime none"),
        ({"flash_attn": FlashAttn(head_dims=(64,), archs=("90",))}, "kernels head dims 64 in bf16, fp16 for sm_90"),
        ({"flash_attn": FlashAttn(source="none")}, "flash-attn none"),
    ],
)
def test_a_row_alone_says_all_of_itself(change: dict[str, object], said: str):
    line = " ".join(shown((replace(Row(id="a", expect="certify"), **change),), 400))  # type: ignore[arg-type]
    assert said in line


def test_every_field_of_a_row_is_shown_somewhere():
    """A field that is added to rows has to be shown, or its way in is missing from this list."""
    # The first columns, the lines below, and a digest that tells a reader nothing.
    elsewhere = {"id", "expect", "because", "what", "content"}
    by_name = {
        "gpus": "GPUs",
        "cuda": "CUDA",
        "library_path": "library path",
        "optional_libraries": "optional libraries",
        "required_level": "publish level",
    }
    names = {by_name.get(one.name, one.name.replace("_", "-")) for one in fields(Row)} - elsewhere
    assert names | {"kernels"} == set(FIELDS)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160, 240])
@pytest.mark.parametrize("file", ["matrix.toml", "matrix.gpu-host.toml"])
def test_no_width_breaks_the_plan(width: int, file: str):
    rows = load(ROOT / file).rows
    lines = shown(rows, width)
    assert all(len(line) <= width for line in lines)
    words = {word for line in lines for word in line.replace(":", " ").split()}
    assert {row.id for row in rows} <= words, "an id was broken in two"
    assert all(row.expect in words for row in rows)


def test_the_default_matrix_is_a_table_in_80_columns():
    lines = shown(ROWS, 80)
    line = next(line for line in lines if line.startswith("cu120-on-library-path "))
    assert line.split()[:3] == ["cu120-on-library-path", "reject", "12.0.1"]


def test_a_word_that_no_table_could_hold_makes_it_a_list():
    image = "registry.example/team/cuda@sha256:" + "0" * 64
    rows = (Row(id="a", expect="certify"), Row(id="b", expect="certify", base=image))
    assert f"  base: {image}" in shown(rows, 110)
    assert any(image in line and line.startswith("b ") for line in shown(rows, 160))


def test_what_must_fail_and_what_a_row_is_for_are_said():
    row = Row(id="a", expect="reject", what="too old", because=(Reason(check="torch.import", matches="[x] y"),))
    lines = shown((row,), 100)
    assert "a: too old" in lines
    assert "a: must fail torch.import matching [x] y" in lines


def test_json_holds_every_field(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["plan", "--matrix", str(ROOT / "matrix.toml"), "--format", "json"]) == ExitCode.AS_EXPECTED
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps([asdict(row) for row in ROWS]))


def matrix_of(count: int, folder: Path) -> list[str]:
    path = folder / "many.toml"
    path.write_text("".join(f'[[row]]\nid = "r{number}"\nexpect = "certify"\n' for number in range(count)))
    return ["plan", "--matrix", str(path), "--format"]


def test_github_makes_no_more_than_256_jobs_of_a_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main([*matrix_of(256, tmp_path), "github"]) == ExitCode.AS_EXPECTED
    assert len(json.loads(capsys.readouterr().out)["include"]) == 256
    assert cli.main([*matrix_of(257, tmp_path), "github"]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert "many.toml: 257 rows, and GitHub Actions makes at most 256 jobs" in said.err
    assert cli.main([*matrix_of(257, tmp_path), "github", "--row", "r256"]) == ExitCode.AS_EXPECTED
    capsys.readouterr()
    assert cli.main([*matrix_of(257, tmp_path), "json"]) == ExitCode.AS_EXPECTED
