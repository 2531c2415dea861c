"""`assay check` writes to a folder of its own, and never over what a run of the matrix found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import publish_samples as samples
import pytest
from report_samples import GOOD, REPORT

from assay import cli, workflow
from assay.certificate import make_certificate, store
from assay.errors import ExitCode, IngredientError
from assay.findings import Level
from assay.matrix.row import Row
from assay.report import RowReport, read, write
from assay.surroundings import Surroundings

MATRIX = '[[row]]\nid = "cu121"\nexpect = "certify"\n'
CHECK = ["check", "somebodys/image:tag", "--row", "cu121"]
IMAGE = "sha256:" + "9" * 64


class Engine:
    """An engine that holds one image."""

    version = "20.10.24"

    def inspect(self, reference: str) -> None:
        if reference != "somebodys/image:tag":
            raise IngredientError(f"image {reference} is not in the engine")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a matrix, and an engine whose image passes every check."""
    (tmp_path / "matrix.toml").write_text(MATRIX)
    monkeypatch.chdir(tmp_path)

    class Around:
        engine, level = Engine(), Level.IMAGE

    def check_row(image: str, row: Row, around: Surroundings) -> RowReport:
        return replace(GOOD, id=row.id)

    monkeypatch.setattr(workflow, "_surroundings", lambda *_: Around())
    monkeypatch.setattr(workflow, "check_row", check_row)
    return tmp_path


def certificate(folder: Path, *, built: bool) -> bytes:
    """Put a certificate of the row there: of an image that was built there, or of one that only was checked."""
    evidence = samples.evidence(samples.row(), IMAGE)
    made = make_certificate(evidence if built else replace(evidence, dockerfile_digest=None, base_digest=None))
    store.write(folder / "cu121" / store.NAME, made)
    return (folder / "cu121" / store.NAME).read_bytes()


def test_a_check_leaves_the_matrix_s_own_report_and_certificate_alone(folder: Path, capsys: pytest.CaptureFixture[str]):
    write(REPORT, folder / "build")
    kept = certificate(folder / "build", built=True)
    assert cli.main(CHECK) == ExitCode.AS_EXPECTED
    assert read(folder / "build/report.json") == REPORT
    assert (folder / "build/cu121" / store.NAME).read_bytes() == kept
    assert [row.id for row in read(folder / "build/check/cu121/report.json").rows] == ["cu121"]
    assert "report: build/check/cu121/report.html" in capsys.readouterr().err


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert cli.main([*CHECK, "--out", str(folder)]) == ExitCode.USAGE
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before
    said = capsys.readouterr().err
    assert "give the check a folder of its own with --out DIR" in said
    return said


def test_a_report_of_several_rows_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]):
    write(REPORT, folder / "build")
    assert "build/report.json is the report of 2 rows" in refused(folder / "build", capsys)


def test_the_certificate_of_an_image_that_was_built_is_not_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    certificate(folder / "build", built=True)
    assert "is the certificate of an image that `assay matrix` built" in refused(folder / "build", capsys)


def test_the_report_of_another_row_that_was_built_there_is_not_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    write(replace(REPORT, rows=(replace(GOOD, id="other"),)), folder / "build")
    (folder / "build/other").mkdir()
    (folder / "build/other/build.log").write_text("the build failed: no route to host")
    assert "build/other/build.log is the log of an image" in refused(folder / "build", capsys)


@pytest.mark.parametrize("name", ["report.json", "cu121/certificate.json"])
def test_what_cannot_be_read_is_not_overwritten(folder: Path, name: str, capsys: pytest.CaptureFixture[str]):
    (folder / "build/cu121").mkdir(parents=True)
    (folder / "build" / name).write_text("{}")
    assert f"build/{name}" in refused(folder / "build", capsys)


def test_what_an_earlier_check_wrote_is_overwritten(folder: Path):
    write(replace(REPORT, rows=(replace(GOOD, verdict="rejected", as_expected=False),)), folder / "out")
    certificate(folder / "out", built=False)
    assert cli.main([*CHECK, "--out", "out"]) == ExitCode.AS_EXPECTED
    assert read(folder / "out/report.json").rows[0].verdict == "certified"


def test_an_image_that_is_not_there_overwrites_no_earlier_verdict(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(CHECK) == ExitCode.AS_EXPECTED
    before = (folder / "build/check/cu121/report.json").read_bytes()
    assert cli.main(["check", "somebodys/imgae:tag", "--row", "cu121"]) == ExitCode.INCONCLUSIVE
    assert "somebodys/imgae:tag is not in the engine" in capsys.readouterr().err
    assert (folder / "build/check/cu121/report.json").read_bytes() == before


def test_the_help_says_where_it_writes(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["check", "--help"])
    assert "build/check/ID" in " ".join(capsys.readouterr().out.split())


def test_a_matrix_report_is_never_where_a_check_writes_by_default(folder: Path, capsys: pytest.CaptureFixture[str]):
    """A row called `check` would have its folder where checks write."""
    (folder / "matrix.toml").write_text(MATRIX.replace("cu121", "check"))
    assert cli.main(["plan"]) == ExitCode.USAGE
    assert "the id 'check' is taken by what assay writes" in capsys.readouterr().err
