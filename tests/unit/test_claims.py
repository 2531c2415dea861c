"""The table of claims: complete, each measured by a function of its own, and honest about what was not measured."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from assay import cli
from assay.claims import by_arithmetic, by_packages, by_report, exit_code, load, measure_all
from assay.claims import measures as m
from assay.claims.table import Context, Measured, NotMeasuredError, select
from assay.commands import claims as command
from assay.errors import ExitCode, IngredientError, UsageError
from assay.findings import Finding, Level, Status
from assay.report import Report, RowReport, write

ROW = {"what": "", "expect": "certify", "as_expected": True, "level": Level.IMAGE}


def report(*rows: RowReport) -> Report:
    return Report(level=Level.IMAGE, rows=rows, started="2026-01-01T00:00:00+00:00", seconds=1.0)


def row(name: str, verdict: str, *findings: Finding, **more) -> RowReport:
    return RowReport(id=name, verdict=verdict, findings=findings, **{**ROW, **more})


def found(check: str, status: Status, measured: str = "") -> Finding:
    return Finding(check=check, status=status, measured=measured)


def test_every_claim_has_its_own_function_and_a_command():
    claims = load()
    assert len({claim.id for claim in claims}) == len(claims) >= 15
    assert {claim.measure for claim in claims} == set(m.FUNCTIONS)
    assert all(claim.how and claim.source and claim.truth for claim in claims)


def test_an_unknown_claim_names_the_nearest():
    with pytest.raises(UsageError, match="driver-minimum"):
        select(load(), ["driver-minimun"])


@pytest.mark.parametrize(
    "name", ["driver_minimum", "gpu_names", "bf16_product", "timeit_syntax", "arithmetic_floor", "memory"]
)
def test_what_needs_no_network_is_measured_anywhere_and_supports_the_table(name):
    measured = m.FUNCTIONS[name](Context())
    assert measured.supports is True
    json.dumps(measured.data)


def test_the_floors_are_those_of_the_arithmetic():
    floors = by_arithmetic.arithmetic_floor(Context()).data["floor_seconds"]
    assert floors == {"A10": pytest.approx(15.4, abs=0.1), "A100": pytest.approx(6.2, abs=0.1)}


@pytest.mark.parametrize("name", ["toolkit_beside_torch", "flash_attn_compiler", "soak"])
def test_without_a_report_nothing_is_claimed(name):
    with pytest.raises(NotMeasuredError, match="no report"):
        m.FUNCTIONS[name](Context())


def test_a_torch_that_imports_beside_both_toolkits_bears_the_verdict_out():
    good = [found("torch.import", Status.PASSED), found("toolkit.matches-torch", Status.FAILED)]
    context = Context(report=report(row("cu120", "rejected", *good), row("cu122", "rejected", *good)))
    assert by_report.toolkit_beside_torch(context).supports is True
    bad = found("torch.import", Status.FAILED)
    context = Context(report=report(row("cu120", "rejected", bad), row("cu122", "rejected", *good)))
    assert by_report.toolkit_beside_torch(context).supports is False


def test_findings_of_certified_rows_come_first_and_unanswered_ones_never():
    rows = (
        row("a", "rejected", found("sample.soak", Status.FAILED, "of a")),
        row("b", "inconclusive", found("sample.soak", Status.ERROR, "of b")),
        row("c", "certified", found("sample.soak", Status.PASSED, "8 pictures")),
    )
    measured = by_report.soak(Context(report=report(*rows)))
    assert (measured.text, measured.supports) == ("sample.soak: 8 pictures", True)


def test_a_compiler_of_121_would_contradict():
    passed = found("flash-attn.import", Status.PASSED)
    for compiler, supports in (
        ("nvcc 12.4.131, g++ 12.1.0", True),
        ("nvcc 12.10.1", True),
        ("nvcc 12.1.105, g++ 12.2.0", False),
    ):
        item = {"name": "flash-attn", "compiler": compiler}
        context = Context(report=report(row("cu121", "certified", passed, ingredients=(item,))))
        assert by_report.flash_attn_compiler(context).supports is supports


def test_what_cannot_be_measured_says_why_and_supports_nothing():
    def unreachable(context):
        raise IngredientError("pip finds no wheel of torch 2.4.0: no connection\nmore")

    claims = select(load(), ["torch-builds", "timeit"])
    functions = {**m.FUNCTIONS, "torch_builds": unreachable}
    first, second = measure_all(claims, Context(), functions)
    assert (first.measured, first.supports) == (
        "not measured here: pip finds no wheel of torch 2.4.0: no connection",
        None,
    )
    assert second.supports is True
    assert exit_code([first, second]) is ExitCode.AS_EXPECTED


def test_a_contradiction_is_not_as_expected():
    claims = select(load(), ["timeit"])
    lines = list(measure_all(claims, Context(), {"timeit_syntax": lambda _: Measured(text="parses", supports=False)}))
    assert exit_code(lines) is ExitCode.NOT_AS_EXPECTED


def test_the_command_prints_writes_and_fills_the_reports_page(tmp_path, capsys):
    write(report(row("cu121", "certified", found("sample.soak", Status.PASSED, "8 pictures"))), tmp_path)
    assert cli.main(["claims", "--out", str(tmp_path), "--claim", "timeit", "--format", "json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["id"], line["supports"]) == ("timeit", True)
    assert not (tmp_path / "claims.json").exists()  # a part of the table does not replace the whole


def test_the_whole_table_goes_to_the_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def unreachable(package, version):
        raise IngredientError("no network in this test")

    monkeypatch.setattr(by_packages, "open_wheel", unreachable)
    write(report(row("cu121", "certified", found("sample.soak", Status.PASSED, "8 pictures"))), tmp_path)
    assert cli.main(["claims", "--out", str(tmp_path)]) == 0
    lines = {line["id"]: line for line in json.loads((tmp_path / "claims.json").read_text())}
    assert lines["seventh-image"]["measured"] == "sample.soak: 8 pictures"
    assert lines["cublaslt-soname"]["measured"] == "not measured here: no network in this test"
    page = (tmp_path / "report.html").read_text()
    assert "sample.soak: 8 pictures" in page
    assert "%timeit" in capsys.readouterr().out


def test_the_terminal_shows_every_claim_and_counts_what_was_settled():
    def nothing(context):
        raise NotMeasuredError("no [GPU] here")

    claims = load()[:3]
    lines = list(measure_all(claims, Context(), {claim.measure: nothing for claim in claims}))
    console = Console(width=80, file=io.StringIO())
    console.print(command.table(lines))
    shown = console.file.getvalue()
    assert all(line.claim[:40] in shown for line in lines)
    assert shown.count("no [GPU] here (settles nothing here)") == 3
    assert command.summary(lines) == "verdicts: 0 borne out, 0 contradicted, 3 not settled here"


def test_a_wheel_of_an_unrecorded_compiler_settles_nothing():
    given = {"name": "flash-attn", "version": "2.8.3", "source": "wheelhouse", "compiler": None}
    imported = Finding(check="flash-attn.import", status=Status.PASSED)
    context = Context(report=report(row("cu121", "certified", imported, ingredients=(given,))))
    measured = by_report.flash_attn_compiler(context)
    assert measured.supports is None
    assert "row cu121" in measured.text
