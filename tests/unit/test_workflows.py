"""The GitHub workflows: pinned, narrow, and every `run:` line accounted for."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import workflow_steps

from assay import cli
from assay.compose import compose
from assay.findings import Level
from assay.matrix import load
from assay.network import NetworkSettings
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


def _row_report(row_id: str, *, expect: str = "certify", good: bool = True) -> RowReport:
    return RowReport(
        id=row_id,
        what="",
        expect=expect,  # type: ignore[arg-type]
        because=(),
        verdict="certified" if expect == "certify" else "rejected",
        as_expected=good,
        level=Level.IMAGE,
        why="",
    )


@pytest.mark.parametrize("case", ["whole", "missing", "unexpected"])
def test_reports_are_merged_and_a_hole_or_surprise_fails(tmp_path: Path, case: str) -> None:
    tools = workflow_steps.stand_in(tmp_path / "tools")
    rows = load(workflow_steps.ROOT / "matrix.toml").rows
    (tmp_path / "matrix.toml").write_text((workflow_steps.ROOT / "matrix.toml").read_text())
    (tmp_path / ".github").symlink_to(workflow_steps.ROOT / ".github")
    for row in rows[1:] if case == "missing" else rows:
        good = not (case == "unexpected" and row.id == "cu122")
        report = _row_report(row.id, expect=row.expect, good=good)
        write(Report(level=Level.IMAGE, rows=(report,)), tmp_path / "reports" / f"report-{row.id}")
    done = workflow_steps.run(MERGE, tools=tools, cwd=tmp_path)
    assert (done.returncode == 0) is (case == "whole"), done.stdout + done.stderr
    merged = json.loads((tmp_path / "build" / "report.json").read_text())
    assert len(merged["rows"]) == len(rows) - (case == "missing")

    summary = tmp_path / "summary.md"
    shown = workflow_steps.run(SUMMARY, tools=tools, cwd=tmp_path, environment={"GITHUB_STEP_SUMMARY": str(summary)})
    assert shown.returncode == 0, shown.stderr
    lines = summary.read_text().splitlines()
    assert len(lines) == 2 + len(merged["rows"])
    assert any("**NO**" in line for line in lines) is (case == "unexpected")


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
        writing = [job for job, steps in workflow_steps.jobs(name).items() if re.search(r": write\b", steps)]
        assert writing == (["publish"] if name == "build-matrix.yml" else [])


def test_no_expression_is_pasted_into_a_script() -> None:
    """What an expression holds could be code: scripts get values by environment only."""
    for name in NAMES:
        for line in workflow_steps.run_lines(name):
            assert "${{" not in line


@pytest.mark.parametrize("name", NAMES)
def test_no_artefact_holds_the_network_settings_of_a_runner(name: str, tmp_path: Path) -> None:
    """They may hold the passwords of its proxy and its package indexes."""
    network = NetworkSettings(proxies={"https_proxy": "http://bob:s3cret@proxy.invalid:3128"})
    row = load(workflow_steps.ROOT / "matrix.toml").select(["cu121"])[0]
    composed = compose(row, out=tmp_path / "build", network=network, wheel=None)
    holding = [path for path in composed.folder.rglob("*") if path.is_file() and "s3cret" in path.read_text("latin-1")]
    assert holding
    of_builds = [patterns for patterns in workflow_steps.uploads(name) if patterns[0].startswith("build")]
    assert of_builds
    for patterns in of_builds:
        kept = uploaded(tmp_path, patterns)
        assert composed.dockerfile in kept
        assert not kept & set(holding)


def uploaded(root: Path, patterns: list[str]) -> set[Path]:
    """Return the files that `upload-artifact` takes: a pattern stands for all below it too, `!` takes away."""
    taken: set[Path] = set()
    for pattern in patterns:
        matches = {path for found in root.glob(pattern.lstrip("!")) for path in (found, *found.rglob("*"))}
        taken = taken - matches if pattern.startswith("!") else taken | matches
    return {path for path in taken if path.is_file()}
