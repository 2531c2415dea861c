"""`assay report`: showing, selecting, merging; what is missing is in every file that comes out of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_samples import GOOD, REJECTED, REPORT

from assay import cli
from assay.errors import ExitCode
from assay.files import exclusive
from assay.report import RowReport, read, write

MATRIX = """\
[[row]]
id = "cu121"
expect = "certify"

[[row]]
id = "cu120-on-library-path"
expect = "reject"
because = { check = "torch.import", matches = "nvJitLink" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a matrix of two rows and the report of each, by another job."""
    (tmp_path / "matrix.toml").write_text(MATRIX)
    for row in (GOOD, REJECTED):
        job(tmp_path, row)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(folder: Path, row: RowReport) -> None:
    out = folder / "jobs" / row.id
    (out / row.id).mkdir(parents=True)
    (out / row.id / "findings.json").write_text(row.id)
    write(replace(REPORT, rows=(row,)), out)


def test_reports_of_all_rows_merge_into_one_that_is_as_expected(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert (
        cli.main(["report", "--merge", "jobs/cu121", "jobs/cu120-on-library-path/report.json"]) == ExitCode.AS_EXPECTED
    )
    assert read(folder / "build/report.json").as_expected
    assert (folder / "build/cu121/findings.json").read_text() == "cu121"
    assert "2 of 2 rows as expected" in capsys.readouterr().out


def test_a_row_that_no_report_holds_is_in_every_output(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["report", "--merge", "jobs/cu121"]) == ExitCode.INCONCLUSIVE
    said = capsys.readouterr()
    assert "row cu120-on-library-path is in none of the reports" in said.err
    assert "1 of 2 rows as expected" in said.out
    raw = json.loads((folder / "build/report.json").read_text())
    assert raw["as_expected"] is False
    assert [(row["id"], row["verdict"]) for row in raw["rows"]] == [
        ("cu121", "certified"),
        ("cu120-on-library-path", "inconclusive"),
    ]
    assert "<title>assay: 1 of 2 rows as expected</title>" in (folder / "build/report.html").read_text()
    suites = ElementTree.parse(folder / "build/junit.xml").getroot()
    assert [suite.get("errors") for suite in suites] == ["0", "1"]


def test_a_row_that_came_out_wrong_outweighs_one_that_is_missing(folder: Path):
    write(replace(REPORT, rows=(replace(GOOD, as_expected=False),)), folder / "wrong")
    assert cli.main(["report", "--merge", "wrong"]) == ExitCode.NOT_AS_EXPECTED


def test_merging_some_rows_asks_for_no_other(folder: Path, capsys: pytest.CaptureFixture[str]):
    merge = ["report", "--merge", "jobs/cu121", "jobs/cu120-on-library-path", "--row", "cu121"]
    assert cli.main(merge) == ExitCode.AS_EXPECTED
    assert [row.id for row in read(folder / "build/report.json").rows] == ["cu121"]
    assert not (folder / "build/cu120-on-library-path").exists()
    assert cli.main(["report", "--merge", "jobs/cu121", "--row", "cu120-on-library-path"]) == ExitCode.INCONCLUSIVE


def test_files_of_an_earlier_verdict_do_not_stay_beside_a_merged_row(folder: Path):
    old = folder / "build/cu121"
    old.mkdir(parents=True)
    (old / "certificate.json").write_text("of another image")
    (old / "notes.txt").write_text("somebody's own")
    cli.main(["report", "--merge", "jobs/cu121"])
    assert not (old / "certificate.json").exists()
    assert (old / "notes.txt").exists()


def test_a_merge_waits_for_nobody_who_is_writing_there(folder: Path, capsys: pytest.CaptureFixture[str]):
    with exclusive(folder / "build"):
        assert cli.main(["report", "--merge", "jobs/cu121"]) == ExitCode.USAGE
    assert "another run" in capsys.readouterr().err


def test_only_the_named_rows_are_shown_and_weighed(folder: Path, capsys: pytest.CaptureFixture[str]):
    write(replace(REPORT, rows=(replace(GOOD, as_expected=False), REJECTED)), folder / "build")
    assert cli.main(["report"]) == ExitCode.NOT_AS_EXPECTED
    capsys.readouterr()
    assert cli.main(["report", "--row", "cu120-on-library-path"]) == ExitCode.AS_EXPECTED
    said = capsys.readouterr().out
    assert "1 of 1 rows as expected" in said
    assert "cu121 " not in said


@pytest.mark.parametrize("more", [[], ["--merge", "jobs/cu121"]])
def test_a_row_that_does_not_exist_is_bad_usage(folder: Path, more: list[str], capsys: pytest.CaptureFixture[str]):
    write(REPORT, folder / "build")
    assert cli.main(["report", "--row", "cu12l", *more]) == ExitCode.USAGE
    assert "no row 'cu12l'" in capsys.readouterr().err
    assert read(folder / "build/report.json") == REPORT
