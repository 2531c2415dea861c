"""The command line's edge: every trouble is one message with its exit code, and never a bare traceback."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest

from assay import cli
from assay.commands import plan
from assay.errors import ExitCode
from assay.findings import Level
from assay.matrix import Matrix
from assay.matrix.row import Row
from assay.progress import View
from assay.report import Report
from assay.row_record import inconclusive

ROOT = Path(__file__).resolve().parents[2]
MATRIX = ["--matrix", str(ROOT / "matrix.toml")]


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/gone.sock")


@pytest.mark.usefixtures("_no_engine")
@pytest.mark.parametrize("command", [["compose", *MATRIX], ["matrix", *MATRIX], ["key"]])
def test_an_output_folder_that_cannot_be_is_bad_usage(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", Path("/proc/assay")):
        assert cli.main([*command, "--out", str(out)]) == ExitCode.USAGE
        said = capsys.readouterr().err
        assert str(out) in said
        assert "--out" in said


@pytest.mark.usefixtures("_no_engine")
def test_what_is_wrong_with_the_command_line_is_said_before_an_engine_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_key = tmp_path / "no.key"
    no_key.write_text("text")
    assert cli.main(["matrix", *MATRIX, "--out", str(tmp_path / "out"), "--key", str(no_key)]) == ExitCode.USAGE
    assert "no PEM private key" in capsys.readouterr().err
    for command in (["matrix", *MATRIX], ["compose", *MATRIX], ["check", "image", *MATRIX], ["claims"]):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, "--wheelhouse", str(tmp_path / "none")])
        assert ended.value.code == ExitCode.USAGE
        assert f"{tmp_path}/none is no folder" in capsys.readouterr().err


def test_a_wheelhouse_that_cannot_be_read_is_bad_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, who runs this on CI, may read every folder
    with pytest.raises(SystemExit):
        cli.main(["compose", *MATRIX, "--wheelhouse", str(tmp_path)])
    assert f"{tmp_path} cannot be read" in capsys.readouterr().err


def test_a_key_to_check_with_that_is_none_says_nothing_about_the_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_key = tmp_path / "no.pub"
    no_key.write_text("text")
    assert cli.main(["verify", "--key", str(no_key), "localhost:1/image:tag"]) == ExitCode.USAGE
    assert "no PEM public key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (OSError(28, "No space left on device", "out/report.json"), "out/report.json: No space left on device"),
        (ZeroDivisionError("a slip"), "a defect of assay"),
    ],
)
def test_what_nobody_foresaw_is_no_verdict(
    trouble: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own exit code for an uncaught exception, 1, would mean that a row came out otherwise than expected."""

    def fail(args: argparse.Namespace) -> ExitCode:
        raise trouble

    monkeypatch.setattr(plan, "run", fail)
    assert cli.main(["plan"]) == ExitCode.INCONCLUSIVE
    assert said in capsys.readouterr().err


def test_an_interrupted_run_says_that_the_next_one_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Ctrl-C while rows are judged: the report is written first, then the run ends as interrupted."""

    def interrupted(matrix: Matrix, rows: Sequence[Row], settings: object, *, view: View, cancel: Event) -> Report:
        os.kill(os.getpid(), signal.SIGINT)
        assert cancel.wait(10)
        reports = tuple(inconclusive(row, Level.IMAGE, "interrupted before it began") for row in rows)
        return Report(level=Level.IMAGE, rows=reports, started="", seconds=0.0, engine="")

    monkeypatch.setattr("assay.commands.matrix.run_matrix", interrupted)
    assert cli.main(["matrix", *MATRIX, "--out", str(tmp_path)]) == ExitCode.INTERRUPTED
    said = capsys.readouterr()
    assert "stopping what runs" in said.err
    assert "the next run goes on from there" in said.err
    assert "interrupted before it began" in said.out
