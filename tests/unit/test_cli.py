"""The command line's edge: every trouble is one message with its exit code, and never a bare traceback."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from report_samples import REJECTED, REPORT

from assay import cli
from assay.commands import plan
from assay.errors import EngineError, ExitCode
from assay.findings import Level
from assay.matrix import Matrix
from assay.matrix.row import Row
from assay.progress import View
from assay.report import Report, write
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


def test_a_run_that_fails_after_it_was_interrupted_ends_as_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Ctrl-C while an engine does not answer: that it never did is not what ended the run."""

    def no_answer(matrix: Matrix, rows: Sequence[Row], settings: object, *, view: View, cancel: Event) -> Report:
        os.kill(os.getpid(), signal.SIGINT)
        assert cancel.wait(10)
        raise EngineError("no Docker engine answers")

    monkeypatch.setattr("assay.commands.matrix.run_matrix", no_answer)
    assert cli.main(["matrix", *MATRIX, "--out", str(tmp_path)]) == ExitCode.INTERRUPTED
    assert "no Docker engine" not in capsys.readouterr().err


def test_ctrl_c_while_a_command_is_being_loaded_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert cli.main(["plan"]) == ExitCode.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def _assay(*arguments: str | Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command with both streams piped."""
    return subprocess.Popen(
        [sys.executable, "-m", "assay", *map(str, arguments)],
        # Empty is as if it were unset: what is written waits in a buffer then, and fails at the very end.
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "PYTHONUNBUFFERED": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


WRONG_ROW = replace(REPORT, rows=(replace(REJECTED, as_expected=False, why="for another reason"),))


@pytest.mark.parametrize(
    ("report", "code"), [(REPORT, ExitCode.AS_EXPECTED), (WRONG_ROW, ExitCode.NOT_AS_EXPECTED)], ids=["good", "wrong"]
)
def test_the_exit_code_is_the_verdict_s_whether_or_not_somebody_reads(
    report: Report, code: ExitCode, tmp_path: Path
) -> None:
    """`assay report | head -1`: a reader that has seen enough makes nothing right, and nothing wrong."""
    write(report, tmp_path)
    run = _assay("report", "--out", tmp_path)
    assert run.stdout
    run.stdout.close()
    assert run.stderr
    said = run.stderr.read()
    run.stderr.close()
    assert run.wait(60) == code
    assert said == b""


def test_a_command_does_all_of_its_work_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    run = _assay("compose", *MATRIX, "--out", tmp_path)
    assert run.stdout
    assert run.stderr
    run.stdout.close()
    run.stderr.close()
    assert run.wait(120) == ExitCode.AS_EXPECTED
    assert len(list(tmp_path.glob("*/Dockerfile"))) == 6


@pytest.mark.parametrize(
    ("command", "unbuffered"), [("--version", ""), ("report --out {folder}", ""), ("report --out {folder}", "1")]
)
def test_a_full_disk_behind_the_output_is_told_in_one_line(command: str, unbuffered: str, tmp_path: Path) -> None:
    """`assay report > FILE`: neither a traceback, nor an exit code that says something of the rows."""
    write(REPORT, tmp_path)
    words = [sys.executable, "-m", "assay", *command.format(folder=tmp_path).split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            words, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
        assert done.stderr == "assay: standard output: No space left on device; mend that, and run it again\n"
        assert done.returncode == ExitCode.INCONCLUSIVE
        silent = subprocess.run(
            [*words[:3], "plan", "--no-such"], env=environment, stderr=full, timeout=60, check=False
        )
        assert silent.returncode == ExitCode.USAGE


def test_no_encoding_of_the_terminal_keeps_a_report_from_being_shown(tmp_path: Path) -> None:
    write(replace(REPORT, rows=(replace(REJECTED, as_expected=False, why="für \N{SNOWMAN}"),)), tmp_path)
    for encoding in ("ascii", "latin1", "utf-8"):
        out, said = _assay("report", "--out", tmp_path, PYTHONIOENCODING=encoding).communicate(timeout=60)
        assert said == b""
        assert "für \N{SNOWMAN}".encode(encoding, "replace") in out


@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_is_as_wide_as_the_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for command in ([], *([name] for name in cli.COMMANDS)):
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= int(columns) or " " not in line.strip() for line in lines), command


def test_every_option_and_choice_is_explained() -> None:
    commands = next(action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        for action in command._actions:
            explained = (action.help or "").replace("(default: %(default)s)", "").strip()
            assert explained, f"assay {name}: {action.dest}"
