"""The table at the end of a run, and the words that it shares with the page."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from report_samples import GOOD, ON_GPU, REJECTED, REPORT, absent
from rich.console import Console

from assay.findings import Finding, Level, Status
from assay.report import Report
from assay.report.table import table
from assay.report.words import gpu, human_bytes, in_full, levels, one_line, outcome, telling_line


def text_of(report: Report, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(report, width))
    return console.export_text()


def test_table_shows_the_root_failure_with_its_last_line():
    text = text_of(REPORT)
    assert "torch.import: ImportError: libcusparse.so.12: undefined symbol" in text
    assert "2 of 2 rows as expected" in text
    assert "9.00 GB" in text
    assert "images take" not in text_of(replace(REPORT, storage={"total": 0, "shared": 0}))


def test_table_says_which_row_is_not_as_expected_and_why():
    row = replace(GOOD, verdict="inconclusive", as_expected=False, why="disk full: /var/lib/docker")
    text = text_of(replace(REPORT, rows=(row,)))
    assert "disk full" in text
    assert "not as expected: cu121" in text


def test_colour_tells_whether_a_row_is_as_expected_not_its_verdict():
    def colours(report: Report) -> str:
        console = Console(width=160, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
        console.print(table(report, 160))
        return console.export_text(styles=True)

    red, green, yellow = "\x1b[1;31m", "\x1b[1;32m", "\x1b[1;33m"
    assert f"{green}rejected" in colours(REPORT)
    assert red not in colours(REPORT)
    assert f"{red}certified (not as expected)" in colours(replace(REPORT, rows=(replace(GOOD, as_expected=False),)))
    assert f"{yellow}inconclusive (not as expected yet)" in colours(replace(REPORT, rows=(absent(GOOD),)))


@pytest.mark.parametrize("width", [80, 160])
def test_levels_are_told_row_by_row_where_they_differ(width):
    mixed = replace(REPORT, rows=(ON_GPU, REJECTED, absent(replace(GOOD, id="cu122"))))
    lines = text_of(mixed, width).splitlines()
    assert all(len(line) <= width for line in lines)
    level = {line.split()[0]: line for line in lines if line.startswith(" cu1")}
    assert " gpu " in level["cu121"]
    assert " image " in level["cu120-on-library-path"]
    assert "1 judged at level gpu, 1 at level image" in " ".join(lines)
    same = text_of(REPORT, width)
    assert "level image" in same
    assert "level" not in same.splitlines()[1]


def test_a_report_of_one_level_claims_it_and_one_of_nothing_claims_the_run_s():
    assert levels(REPORT) == "level image"
    assert levels(replace(REPORT, rows=(ON_GPU, absent(REJECTED)))) == "level gpu"
    assert levels(Report(level=Level.GPU, rows=(absent(GOOD),))) == "level gpu"


def test_the_gpu_comes_with_how_the_container_got_it_where_that_is_known():
    assert gpu(ON_GPU) == "NVIDIA H100 (GPU-1), driver 580.159.04, through CDI"
    older = {key: value for key, value in (ON_GPU.gpu or {}).items() if key != "access"}
    assert gpu(replace(ON_GPU, gpu=older)) == "NVIDIA H100 (GPU-1), driver 580.159.04"
    assert gpu(replace(ON_GPU, gpu={**older, "access": ""})).endswith("580.159.04")
    assert gpu(GOOD) == "none"


def test_the_gpus_of_the_row_that_were_not_judged_are_named_behind_the_one_that_was():
    said = Finding(check="gpu.matches-row", status=Status.PASSED, data={"not_judged": ["A100 (8.0)", "L4 (8.9)"]})
    assert gpu(replace(ON_GPU, findings=(said,))).endswith("through CDI; not judged: A100 (8.0), L4 (8.9)")
    for data in ({}, {"of_row": True}, {"not_judged": []}, {"not_judged": None}):  # older ones, and none
        assert gpu(replace(ON_GPU, findings=(replace(said, data=data),))) == gpu(ON_GPU)


def test_the_telling_line_is_the_one_that_the_row_names_wherever_it_stands():
    failure = replace(REJECTED.findings[0], measured="first\nnvJitLink is too old", evidence="a trace\nof no use")
    assert telling_line(REJECTED, failure) == "nvJitLink is too old"
    broken = replace(REJECTED, because=({"check": "torch.import", "matches": "("},))
    assert telling_line(broken, failure) == "a trace\nof no use", "a report can come from anywhere"


def test_a_row_that_another_run_could_settle_is_open():
    assert outcome(REJECTED) == "as-expected"
    assert outcome(replace(REJECTED, as_expected=False)) == "unexpected"
    assert outcome(replace(REJECTED, as_expected=False, complete=False)) == "open"


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


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 100, 119])
def test_no_terminal_is_too_narrow_for_the_verdicts(width):
    wrong = replace(REJECTED, id="cu120", as_expected=False, why="for another reason")
    text = text_of(replace(REPORT, rows=(ON_GPU, REJECTED, wrong, absent(replace(GOOD, id="cu122")))), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    said = [line.split()[0].rstrip(":") for line in text.splitlines() if "certified" in line or "rejected" in line]
    assert {"cu121", "cu120"} <= set(said)
    assert "inconclusive" in text


def test_no_part_of_a_path_is_lost_to_the_width_of_a_column():
    path = "/opt/venv/lib/python3.11/site-packages/torch/lib/../../nvidia/cusparse/lib/libcusparse.so.12"
    failure = replace(REJECTED.findings[0], evidence=f"ImportError: {path}: undefined symbol: __nvJitLinkAddData_12_1")
    report = replace(REPORT, rows=(replace(REJECTED, findings=(failure,)),))
    for width in (80, 120, 160):
        assert path in "".join(text_of(report, width).split())
