"""The GitHub workflows: pinned, narrow, and every `run:` line accounted for."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import workflow_steps

from assay import cli
from assay.findings import Finding, Level, Status
from assay.matrix import load
from assay.matrix.row import Row
from assay.report import Report, RowReport, write

NAMES = ("ci.yml", "build-matrix.yml")
PLAN = 'plan="$(nox -s plan -- --format github | grep \'^{\')"\necho "matrix=$plan" >> "$GITHUB_OUTPUT"'
MERGE = "nox -s report -- --merge reports/*/"
SUMMARY = 'python .github/summary.py build/report.json >> "$GITHUB_STEP_SUMMARY"'

RUN_IN_THIS_FILE = {"nox -s plan", PLAN, MERGE, SUMMARY}
RUN_ON_A_REGISTRY = {
    'docker save "assay/$ROW:latest" | gzip -1 > "$RUNNER_TEMP/image.tar.gz"',
    'for image in "$RUNNER_TEMP"/images/*/image.tar.gz; do docker load --input "$image"; done',
    'printf \'%s\' "$TOKEN" | docker login "$REGISTRY" --username "$ACTOR" --password-stdin',
    'nox -s publish -- --registry "$REGISTRY/${NAME,,}" --accept-unsigned',
    'docker logout "$REGISTRY"',
}
"""By tests/registry/test_workflow_publish.py."""
SESSIONS_WITH_RUNS_OF_THEIR_OWN = {
    "nox -s lint",
    "nox -s tests",
    "nox -s build-matrix -- --level image",
    'nox -s build-matrix -- --row "$ROW"',
}
"""This is such a session, or one takes half an hour; here their arguments are checked."""
NOT_OFF_GITHUB = {"python -m pip install nox", "cosign sign --yes"}
"""Needs a package index; needs the identity that GitHub gives a workflow."""


def test_every_run_line_is_accounted_for() -> None:
    known = RUN_IN_THIS_FILE | RUN_ON_A_REGISTRY | SESSIONS_WITH_RUNS_OF_THEIR_OWN
    lines = {line for name in NAMES for line in workflow_steps.run_lines(name)}
    elsewhere = {line for line in lines - known if any(start in line for start in NOT_OFF_GITHUB)}
    assert lines - known - elsewhere == set()
    assert known - lines == set(), "no longer in any workflow"
    assert len(elsewhere) == len(NOT_OFF_GITHUB)


@pytest.mark.parametrize("line", sorted(SESSIONS_WITH_RUNS_OF_THEIR_OWN))
def test_sessions_exist_and_take_their_arguments(line: str) -> None:
    words = shlex.split(line.replace('"$ROW"', "cu121"))
    noxfile = (workflow_steps.ROOT / "noxfile.py").read_text(encoding="utf-8")
    session = words[2]
    assert f'name="{session}"' in noxfile or f"def {session}(" in noxfile
    if session == "build-matrix":
        args = cli.parser("matrix").parse_args(["matrix", *words[4:]])
        assert args.level == "image" or args.row == ["cu121"]


def test_the_plan_becomes_one_job_a_row(tmp_path: Path) -> None:
    tools = workflow_steps.stand_in(tmp_path / "tools")
    done = workflow_steps.run(PLAN, tools=tools, environment={"GITHUB_OUTPUT": str(tmp_path / "output")})
    assert done.returncode == 0, done.stderr
    key, _, value = (tmp_path / "output").read_text().partition("=")
    assert key == "matrix"
    rows = load(workflow_steps.ROOT / "matrix.toml").rows
    jobs = json.loads(value)["include"]
    assert [job["row"] for job in jobs] == [row.id for row in rows]
    assert [tuple(job["runner"]) for job in jobs] == [row.runner for row in rows]
    shown = workflow_steps.run("nox -s plan", tools=tools)
    assert shown.returncode == 0, shown.stderr
    assert all(row.id in shown.stdout for row in rows)


def _row_report(row: Row, *, good: bool) -> RowReport:
    return RowReport(
        id=row.id,
        what="",
        expect=row.expect,
        because=tuple({"check": reason.check, "matches": reason.matches} for reason in row.because),
        verdict="certified" if row.expect == "certify" else "rejected",
        as_expected=good,
        level=Level.IMAGE,
        why="" if good else "it does\nnot match 'a|b'",
        findings=(Finding(check="torch.import", status=Status.PASSED),),
    )


@pytest.mark.parametrize("case", ["whole", "missing", "unexpected"])
def test_reports_are_merged_and_a_hole_or_surprise_fails(tmp_path: Path, case: str) -> None:
    tools = workflow_steps.stand_in(tmp_path / "tools")
    rows = load(workflow_steps.ROOT / "matrix.toml").rows
    (tmp_path / "matrix.toml").write_text((workflow_steps.ROOT / "matrix.toml").read_text())
    (tmp_path / ".github").symlink_to(workflow_steps.ROOT / ".github")
    for row in rows[1:] if case == "missing" else rows:
        good = not (case == "unexpected" and row.id == "cu122")
        report = _row_report(row, good=good)
        write(Report(level=Level.IMAGE, rows=(report,)), tmp_path / "reports" / f"report-{row.id}")
    done = workflow_steps.run(MERGE, tools=tools, cwd=tmp_path)
    assert (done.returncode == 0) is (case == "whole"), done.stdout + done.stderr
    merged = json.loads((tmp_path / "build" / "report.json").read_text())
    assert [row["id"] for row in merged["rows"]] == [row.id for row in rows]
    assert merged["as_expected"] is (case == "whole")

    summary = tmp_path / "summary.md"
    shown = workflow_steps.run(SUMMARY, tools=tools, cwd=tmp_path, environment={"GITHUB_STEP_SUMMARY": str(summary)})
    assert shown.returncode == 0, shown.stderr
    lines = summary.read_text().splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1, "a text broke the table"
    wrong = [line for line in lines if "**NO**" in line]
    told = {"whole": None, "missing": "in none of the reports", "unexpected": "it does not match 'a&#124;b'"}[case]
    assert [told in line for line in wrong] == ([] if told is None else [True])


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned_by_commit_with_their_version(name: str) -> None:
    uses = re.findall(r"uses: (.*)", (workflow_steps.WORKFLOWS / name).read_text(encoding="utf-8"))
    assert uses
    for one in uses:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one), one


def test_only_publishing_may_write() -> None:
    for name in NAMES:
        text = (workflow_steps.WORKFLOWS / name).read_text(encoding="utf-8")
        assert re.search(r"^permissions: \{\}$", text, re.MULTILINE), name
        jobs = re.split(r"^  (?=[\w-]+:$)", text.partition("\njobs:\n")[2], flags=re.MULTILINE)
        writing = [job.partition(":")[0] for job in jobs if re.search(r": write\b", job)]
        assert writing == (["publish"] if name == "build-matrix.yml" else [])


def test_no_expression_is_pasted_into_a_script() -> None:
    """What an expression holds could be code: scripts get values by environment only."""
    for name in NAMES:
        for line in workflow_steps.run_lines(name):
            assert "${{" not in line
