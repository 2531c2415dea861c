"""The report: JSON round trip, merge, diff, JUnit, HTML, and the table's lines."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from assay import cli
from assay.errors import UsageError
from assay.findings import Finding, Level, Status
from assay.report import ImageRecord, Report, RowReport, read, write
from assay.report.diff import diff
from assay.report.html import html
from assay.report.junit import junit
from assay.report.model import merge
from assay.report.table import human_bytes, in_full, one_line, table

IMPORT_ERROR = "Traceback ...\nImportError: libcusparse.so.12: undefined symbol: __nvJitLinkAddData_12_1"
GOOD = RowReport(
    id="cu121",
    what="the article's combination",
    expect="certify",
    verdict="certified",
    as_expected=True,
    level=Level.IMAGE,
    image=ImageRecord(id="sha256:" + "a" * 64, tags=("assay/cu121:latest",), size=7_123_000_000),
    build_seconds=100.4,
    check_seconds=20.0,
    findings=(Finding(check="torch.import", status=Status.PASSED, measured="imported"),),
)
REJECTED = RowReport(
    id="cu120-on-library-path",
    what="CUDA 12.0 first on LD_LIBRARY_PATH",
    expect="reject",
    because=({"check": "torch.import", "matches": "nvJitLink"},),
    verdict="rejected",
    as_expected=True,
    level=Level.IMAGE,
    image=ImageRecord(id="sha256:" + "b" * 64, size=1),
    findings=(
        Finding(check="torch.import", status=Status.FAILED, measured="no import", evidence=IMPORT_ERROR),
        Finding(check="torch.version", status=Status.BLOCKED, measured="torch.import failed"),
    ),
)
REPORT = Report(
    level=Level.IMAGE,
    rows=(GOOD, REJECTED),
    started="2026-01-01T00:00:00+00:00",
    seconds=130.0,
    engine="Docker Engine 20.10.24",
    storage={"total": 9_000_000_000, "shared": 6_000_000_000},
)


def text_of(report: Report, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(report, width))
    return console.export_text()


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


def test_a_report_without_rows_is_not_as_expected():
    assert not Report(level=Level.IMAGE, rows=()).as_expected


def test_merge_orders_by_the_matrix_and_names_what_is_missing():
    alone = [replace(REPORT, rows=(REJECTED,)), replace(REPORT, rows=(GOOD,))]
    merged, missing = merge(alone, ["cu121", "cu122", "cu120-on-library-path"])
    assert [row.id for row in merged.rows] == ["cu121", "cu120-on-library-path"]
    assert missing == ("cu122",)


def test_merge_refuses_a_row_twice_and_a_stranger():
    with pytest.raises(UsageError, match="'cu121' is in two"):
        merge([REPORT, REPORT], ["cu121", "cu120-on-library-path"])
    with pytest.raises(UsageError, match="does not have: cu120-on-library-path"):
        merge([REPORT], ["cu121"])


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
    on_gpu = replace(GOOD, level=Level.GPU)
    order = ["cu121", "cu120-on-library-path"]
    assert merge([replace(REPORT, rows=(on_gpu,))], order)[0].level is Level.GPU
    assert merge([replace(REPORT, rows=(on_gpu, REJECTED))], order)[0].level is Level.IMAGE


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


def test_junit_counts_an_expected_rejection_as_no_failure():
    root = ElementTree.fromstring(junit(REPORT))
    assert [suite.get("failures") for suite in root] == ["0", "0"]
    assert root[1].get("skipped") == "1"
    unexpected = replace(REJECTED, as_expected=False, why="rejected, but certify was expected")
    (suite,) = ElementTree.fromstring(junit(replace(REPORT, rows=(unexpected,))))
    assert suite.get("failures") == "2"


def test_junit_survives_evidence_that_xml_cannot_hold():
    coloured = replace(GOOD.findings[0], status=Status.ERROR, evidence="\x1b[31mred\x00 \ud800<&>")
    root = ElementTree.fromstring(junit(replace(REPORT, rows=(replace(GOOD, findings=(coloured,)),))))
    assert root[0].get("errors") == "1"


def test_html_escapes_evidence_and_shows_samples_only_where_they_are():
    evil = replace(REJECTED, findings=(replace(REJECTED.findings[0], evidence="<script>alert(1)</script>"),))
    page = html(replace(REPORT, rows=(GOOD, evil)), samples={"cu121": "cu121/sample.png"})
    assert "<script>" not in page
    assert page.count('<img class="sample"') == 1
    assert 'src="cu121/sample.png"' in page


def test_table_shows_the_root_failure_with_its_last_line():
    text = text_of(REPORT)
    assert "torch.import: ImportError: libcusparse.so.12: undefined symbol" in text
    assert "2 of 2 rows as expected" in text
    assert "9.00 GB" in text


def test_table_says_which_row_is_not_as_expected_and_why():
    row = replace(GOOD, verdict="inconclusive", as_expected=False, why="disk full: /var/lib/docker")
    text = text_of(replace(REPORT, rows=(row,)))
    assert "disk full" in text
    assert "not as expected: cu121" in text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (5_200_000_000, "5.20 GB"), (7_000_000, "7 MB")],
)
def test_human_bytes(size, text):
    assert human_bytes(size) == text


def test_one_line_keeps_both_ends():
    line = one_line("first\n" + "x" * 300 + "the end\n\n", limit=40)
    assert len(line) == 40
    assert line.startswith("xxx")
    assert line.endswith("the end")


def test_a_narrow_terminal_gets_the_reasons_below_the_table():
    text = text_of(REPORT, width=80)
    head = next(line for line in text.splitlines() if "expected" in line and "row" in line)
    assert "checks s" in head
    assert "root failure" not in head
    assert "cu120-on-library-path: torch.import: ImportError" in text


def test_the_table_says_what_happened_before_what_to_do():
    why = "row a: no wheel fits it:\n  it holds no machine code for sm_80\n" + "Put one that fits into a folder. " * 40
    said = in_full(why)
    assert said.startswith("row a: no wheel fits it: it holds no machine code for sm_80 Put one")
    assert len(said) == 480
