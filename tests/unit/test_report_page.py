"""The report's page: what it links, what it colours, what it says of levels, and that it needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import GOOD, ON_GPU, REJECTED, REPORT, absent

from assay.findings import Status
from assay.report import Report, RowReport, write
from assay.report.html import html
from assay.report.write import ROW_FILES, row_files


class Page(HTMLParser):
    """A page's links and pictures, and the text of each element that has a class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.labels: list[str] = []
        self.cells = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value for key in ("href", "src") if (value := given.get(key))]
        self.cells += tag == "td"
        self.labels += [value for key in ("data-label",) if (value := given.get(key))]


def words_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.partition("</style>")[2]).split())


def of(*rows: RowReport) -> Report:
    return replace(REPORT, rows=rows)


def test_evidence_is_escaped():
    evil = replace(REJECTED, findings=(replace(REJECTED.findings[0], evidence="<script>alert(1)</script>"),))
    page = html(of(GOOD, evil))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_row_s_files_are_linked_where_they_are_and_lead_to_them(tmp_path: Path):
    for name in ROW_FILES:
        (tmp_path / "cu121").mkdir(exist_ok=True)
        (tmp_path / "cu121" / name).write_text("")
    (tmp_path / "cu120-on-library-path").mkdir()
    (tmp_path / "cu120-on-library-path" / "build.log").write_text("")
    write(REPORT, tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    beside = [address for address in page.addresses if not address.startswith("#")]
    assert {f"cu121/{name}" for name in ROW_FILES} | {"cu120-on-library-path/build.log"} == set(beside)
    assert all((tmp_path / address).is_file() for address in beside)


def test_the_picture_is_shown_only_where_there_is_one():
    page = html(REPORT, files={"cu121": ["sample.png"], "cu120-on-library-path": ["build.log"]})
    assert page.count("<img") == 1
    assert 'src="cu121/sample.png"' in page


def test_files_of_an_earlier_verdict_are_not_passed_off_as_this_one_s(tmp_path: Path):
    for name in ROW_FILES:
        (tmp_path / name).write_text("")
    assert row_files(GOOD, tmp_path) == ROW_FILES
    assert row_files(absent(GOOD), tmp_path) == ("Dockerfile", "build.log")
    unsettled = replace(REJECTED, as_expected=False, complete=False)
    assert "certificate.json" not in row_files(unsettled, tmp_path)
    assert "findings.json" in row_files(unsettled, tmp_path)


def test_no_row_id_becomes_an_address_of_another_kind():
    page = Page(html(of(replace(GOOD, id="javascript:alert(1)//")), files={"javascript:alert(1)//": ["build.log"]}))
    assert [address for address in page.addresses if not address.startswith("#")] == [
        "javascript%3Aalert%281%29%2F%2F/build.log"
    ]


def test_the_page_needs_nothing_from_elsewhere():
    page = html(REPORT, files={"cu121": list(ROW_FILES)}, claims=[CLAIM])
    assert not [address for address in Page(page).addresses if re.match(r"[a-z]+:|/", address)]
    assert "url(" not in page
    assert "@import" not in page


CLAIM = {"claim": "it works", "verdict": "true", "measured": "it does", "how": "assay matrix"}


def test_colour_and_words_tell_the_outcome_not_the_verdict():
    page = html(REPORT)
    assert 'class="unexpected"' not in page
    assert 'class="open"' not in page
    assert words_of(page).count("as expected") >= 5  # head, and each row twice
    assert "failed, as expected" in page

    surprise = html(of(replace(REJECTED, as_expected=False, why="rejected, but certify was expected")))
    assert 'class="as-expected"' not in surprise
    assert "\N{BALLOT X} not as expected" in words_of(surprise)
    assert '<span class="unexpected">failed</span>' in surprise

    nobody = html(of(absent(GOOD)))
    assert 'class="open"' in nobody
    assert "? not as expected yet" in words_of(nobody)


def test_a_failure_that_the_row_does_not_name_is_never_called_expected():
    other = replace(REJECTED.findings[0], check="torch.kernels", status=Status.FAILED)
    page = html(of(replace(REJECTED, findings=(*REJECTED.findings, other))))
    assert page.count("failed, as expected") == 1


def test_every_row_says_its_level_and_the_head_claims_none_for_all_when_they_differ():
    page = words_of(html(of(ON_GPU, REJECTED)))
    assert "2 of 2 rows as expected, 1 judged at level gpu, 1 at level image" in page
    assert "level gpu GPU NVIDIA H100 (GPU-1), driver 580.159.04, through CDI" in page
    assert "level image image sha256:bbb" in page
    assert "2 of 2 rows as expected, level image" in words_of(html(REPORT))


@pytest.mark.parametrize("row", [GOOD, ON_GPU, REJECTED, absent(GOOD)])
def test_what_was_found_and_the_gpu_are_not_run_together(row: RowReport):
    page = html(of(row))
    assert not re.search(r"passed\s+On ", words_of(page))


def test_on_a_phone_every_cell_has_its_column_s_name():
    """There is no table there: each line is a card, and the head is hidden."""
    with_ingredients = replace(
        GOOD, ingredients=({"name": "flash-attn", "version": "2", "source": "x", "sha256": None},)
    )
    page = Page(html(of(with_ingredients, REJECTED), claims=[CLAIM]))
    assert page.cells == len(page.labels) > 20
    assert "@media (max-width: 45rem)" in html(REPORT)


def test_rows_that_did_not_come_out_as_expected_are_named_first():
    wrong = replace(REJECTED, as_expected=False, why="for another reason")
    said = words_of(html(of(GOOD, wrong, absent(replace(GOOD, id="cu122")))))
    head = said[: said.index(REPORT.started)]
    assert "not as expected : cu120-on-library-path" in head
    assert "not as expected yet : cu122" in head
    assert "not as expected" not in words_of(html(REPORT))
