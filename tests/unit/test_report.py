"""The report: JSON round trip, merge, diff, JUnit."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from report_samples import GOOD, ON_GPU, REJECTED, REPORT, absent
from rich.console import Console

from assay import cli
from assay.errors import UsageError
from assay.findings import Level, Status
from assay.report import ImageRecord, Report, read, write
from assay.report.diff import diff
from assay.report.html import html
from assay.report.junit import junit
from assay.report.merge import merge
from assay.report.table import table


def test_written_report_reads_back_equal_and_has_the_documented_keys(tmp_path):
    write(REPORT, tmp_path)
    assert read(tmp_path / "report.json") == REPORT
    raw = json.loads((tmp_path / "report.json").read_text())
    assert raw["schema"] == 1
    assert raw["as_expected"] is True
    row = raw["rows"][1]
    assert row["root_failures"] == ["torch.import"]
    assert row["findings"][0]["status"] == "failed"
    assert set(row["seconds"]) == {"build", "checks"}
    assert not list(tmp_path.glob(".*")), "temporary files were left behind"


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "level": "moon", "rows": []}'],
)
def test_a_file_that_is_no_report_is_refused_by_name(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"report\.json"):
        read(path)


def test_a_row_with_a_word_that_is_no_verdict_is_refused(tmp_path):
    """The table and the page look up how to show a verdict: what is none must not get that far."""
    raw = REPORT.to_json()
    raw["rows"][1]["verdict"] = "fine"
    (tmp_path / "report.json").write_text(json.dumps(raw))
    with pytest.raises(UsageError, match="'fine' is no verdict"):
        read(tmp_path / "report.json")


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*place, key)
        yield from _places(below, (*place, key))


WRONG = (None, True, 0, 10**400, "", "\ud800", "../up", [], [None], {}, {"a": 1})


def test_a_damaged_report_is_either_shown_or_refused_by_name(tmp_path):
    """Whatever a merge brings, or somebody edits: never another exception, and never a wrong word for true."""
    whole = replace(
        REPORT, rows=(replace(ON_GPU, ingredients=({"name": "a", "version": "1", "source": "b"},)), REJECTED)
    )
    path, text = tmp_path / "report.json", json.dumps(whole.to_json())
    refused = 0
    for place in _places(json.loads(text)):
        for wrong in WRONG:
            raw = json.loads(text)
            inner = raw
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = wrong
            path.write_text(json.dumps(raw))
            try:
                found = read(path)
            except UsageError as error:
                refused += str(error).startswith(f"{path}: ")
                continue
            assert all(isinstance(row.as_expected, bool) for row in found.rows)
            junit(found)
            html(found)
            diff(whole, found, measured=True)
            Console(file=io.StringIO()).print(table(found))
    assert refused > 500


@pytest.mark.parametrize("content", ["[" * 100_000, '{"schema": 1, "a": "\\ud800"}'])
def test_what_no_reader_can_take_is_refused_by_name(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UsageError, match=r"report\.json: not a readable report"):
        read(tmp_path / "report.json")


def test_kept_reports_can_still_be_read():
    kept = sorted((Path(__file__).parents[2] / "docs" / "evidence").rglob("report.json"))
    assert kept
    assert all(read(path).rows for path in kept)


def test_a_report_without_rows_is_not_as_expected():
    assert not Report(level=Level.IMAGE, rows=()).as_expected


def test_rows_are_selected_by_id_without_what_was_told_of_the_whole_run():
    one = REPORT.select(["cu121"], "report.json")
    assert one.rows == (GOOD,)
    assert one.seconds == pytest.approx(120.4)
    assert one.storage == {}
    assert REPORT.select([], "report.json") == REPORT


def test_selecting_a_row_that_is_not_in_the_report_names_the_nearest():
    with pytest.raises(UsageError, match=r"report\.json: no row 'cu12l' in it; perhaps you meant 'cu121'"):
        REPORT.select(["cu121", "cu12l"], "report.json")


MATRIX = (absent(GOOD), absent(replace(GOOD, id="cu122")), absent(REJECTED))


def test_a_row_that_no_report_holds_stands_in_the_merged_one_as_inconclusive():
    parts = [("b", replace(REPORT, rows=(REJECTED,))), ("a", replace(REPORT, rows=(GOOD,)))]
    merged, missing = merge(parts, MATRIX)
    assert [row.id for row in merged.rows] == ["cu121", "cu122", "cu120-on-library-path"]
    assert missing == ("cu122",)
    assert merged.rows[1].verdict == "inconclusive"
    assert not merged.as_expected
    assert merge([*parts, ("c", replace(REPORT, rows=(replace(GOOD, id="cu122"),)))], MATRIX)[0].as_expected


def test_merge_names_every_report_that_does_not_fit_at_once():
    other = replace(REJECTED, because=({"check": "torch.import", "matches": "another"},))
    stranger = replace(GOOD, id="cu999")
    parts = [
        ("a/report.json", replace(REPORT, rows=(GOOD, stranger))),
        ("b/report.json", replace(REPORT, rows=(GOOD, other))),
        ("c/report.json", replace(REPORT, rows=(replace(GOOD, id="cu122", expect="reject"),))),
    ]
    with pytest.raises(UsageError) as refused:
        merge(parts, MATRIX)
    said = str(refused.value)
    assert "a/report.json: row 'cu999' is not in the matrix" in said
    assert "b/report.json: row 'cu121' is in a/report.json too" in said
    assert "b/report.json: row 'cu120-on-library-path' was judged by another `because`" in said
    assert "c/report.json: row 'cu122' was judged by another `expect`" in said


def test_merging_brings_the_rows_folders_along_but_not_the_machines_network_settings(tmp_path, monkeypatch):
    """They may hold passwords, and what is merged is kept as an artefact."""
    job = tmp_path / "report-cu121"
    for name in ("build.log", "network/run.sh", "network/apt/other.conf", "runtime/network/kept"):
        file = job / "cu121" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    write(replace(REPORT, rows=(GOOD,)), job)
    matrix = ["--matrix", str(Path(__file__).parents[2] / "matrix.toml"), "--row", "cu121"]
    monkeypatch.chdir(job.parent)
    assert cli.main(["report", *matrix, "--out", str(tmp_path / "all"), "--merge", job.name]) == 0
    brought = {
        path.relative_to(tmp_path / "all/cu121").as_posix()
        for path in (tmp_path / "all/cu121").rglob("*")
        if path.is_file()
    }
    assert brought == {"build.log", "runtime/network/kept"}


def test_merged_level_is_gpu_only_if_every_row_is():
    matrix = (absent(GOOD), absent(REJECTED))
    assert merge([("a", replace(REPORT, rows=(ON_GPU,)))], matrix)[0].level is Level.GPU
    assert merge([("a", replace(REPORT, rows=(ON_GPU, REJECTED)))], matrix)[0].level is Level.IMAGE


def test_diff_names_verdict_image_and_finding_but_no_times():
    after = replace(
        GOOD,
        verdict="rejected",
        build_seconds=1.0,
        image=ImageRecord(id="sha256:" + "c" * 64),
        findings=(replace(GOOD.findings[0], status=Status.FAILED, measured="broken", seconds=9.0),),
    )
    changes = diff(REPORT, replace(REPORT, rows=(after,)))
    assert {(change.row, change.subject) for change in changes} == {
        ("cu121", "verdict"),
        ("cu121", "image"),
        ("cu121", "torch.import"),
        ("cu120-on-library-path", "row"),
    }
    assert diff(REPORT, replace(REPORT, seconds=1.0, started="later")) == ()


def test_diff_shows_what_passing_checks_measured_only_when_asked():
    """Speeds and freshly drawn prompts differ in every run: two runs of one image would never be the same."""
    faster = replace(GOOD, findings=(replace(GOOD.findings[0], measured="imported in 1.3 s"),))
    after = replace(REPORT, rows=(faster, REJECTED))
    assert diff(REPORT, after) == ()
    (change,) = diff(REPORT, after, measured=True)
    assert (change.subject, change.after) == ("torch.import", "passed: imported in 1.3 s")
    worse = replace(REJECTED, findings=(replace(REJECTED.findings[0], measured="another error"),))
    assert [change.subject for change in diff(REPORT, replace(REPORT, rows=(GOOD, worse)))] == [
        "torch.import",
        "torch.version",
    ]


def test_diff_sees_another_reason_another_result_and_another_way_to_the_gpu():
    before = replace(REPORT, rows=(ON_GPU, REJECTED))
    elsewhere = replace(ON_GPU, gpu={**(ON_GPU.gpu or {}), "access": "runtime"})
    otherwise = replace(
        REJECTED, as_expected=False, complete=False, because=({"check": "torch.import", "matches": "x"},)
    )
    changes = {change.subject: change for change in diff(before, replace(before, rows=(elsewhere, otherwise)))}
    assert set(changes) == {"gpu", "expectation", "result"}
    assert "CDI" in changes["gpu"].before
    assert "runtime" in changes["gpu"].after
    assert changes["result"].after == "not as expected yet"


def test_junit_counts_an_expected_rejection_as_no_failure():
    root = ElementTree.fromstring(junit(REPORT))
    assert [suite.get("failures") for suite in root] == ["0", "0"]
    assert root[1].get("skipped") == "1"
    unexpected = replace(REJECTED, as_expected=False, why="rejected, but certify was expected")
    (suite,) = ElementTree.fromstring(junit(replace(REPORT, rows=(unexpected,))))
    assert suite.get("failures") == "2"


def test_junit_has_an_error_for_a_row_that_nobody_judged():
    (suite,) = ElementTree.fromstring(junit(replace(REPORT, rows=(absent(GOOD),))))
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    error = suite.find("testcase/error")
    assert error is not None
    assert error.get("message") == "inconclusive: in none of the reports"
    unsettled = replace(REJECTED, as_expected=False, complete=False, findings=())
    (suite,) = ElementTree.fromstring(junit(replace(REPORT, rows=(unsettled,))))
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0"), "as the exit code has it"


def test_junit_survives_evidence_that_xml_cannot_hold():
    coloured = replace(GOOD.findings[0], status=Status.ERROR, evidence="\x1b[31mred\x00 \ud800<&>")
    root = ElementTree.fromstring(junit(replace(REPORT, rows=(replace(GOOD, findings=(coloured,)),))))
    assert root[0].get("errors") == "1"
