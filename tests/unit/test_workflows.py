"""The GitHub workflows: pinned, narrow, and every `run:` line accounted for."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import workflow_steps
from wheel_factory import wheel
from workflow_steps import NAMES

from assay import cli, wheels
from assay.commands import plan
from assay.compose import compose
from assay.files import file_sha256
from assay.findings import Finding, Level, Status
from assay.matrix import load
from assay.matrix.row import Row
from assay.network import NetworkSettings
from assay.report import Report, RowReport, write

PLAN = 'plan="$(nox -R -s plan -- --format github | grep \'^{\')"\necho "matrix=$plan" >> "$GITHUB_OUTPUT"'
MERGE = "nox -R -s report -- --merge reports/*/"
SUMMARY = 'python3 .github/summary.py build/report.json >> "$GITHUB_STEP_SUMMARY"'

CERTIFY = 'nox -R -s build-matrix -- --row "$ROW" --level "$LEVEL" --wheelhouse "$RUNNER_TEMP/wheels"'
WHEELHOUSE = 'mkdir -p "$RUNNER_TEMP/wheels"'
REFUSE = (
    'echo "::error::only the branch $BRANCH publishes, and this is $GITHUB_REF: start it there, or do not publish"\n'
    "exit 1"
)
WHEELS = 'nox -R -s wheel -- --out "$RUNNER_TEMP/wheels"'

RUN_IN_THIS_FILE = {"nox -R -s plan", PLAN, MERGE, SUMMARY, CERTIFY, WHEELHOUSE, WHEELS, REFUSE}
RUN_ON_A_REGISTRY = {
    'python3 .github/images.py save "assay/$ROW:latest" "$RUNNER_TEMP/image"',
    'python3 .github/images.py load "$RUNNER_TEMP/images"',
    "docker image prune --force --filter label=io.assay.composed",
    'printf \'%s\' "$TOKEN" | docker login "$REGISTRY" --username "$ACTOR" --password-stdin',
    'assay publish --registry "$REGISTRY/${NAME,,}" --accept-unsigned',
    'docker logout "$REGISTRY"',
}
"""By tests/registry/test_workflow_publish.py."""
SESSIONS_WITH_RUNS_OF_THEIR_OWN = {
    "nox -R -s lint",
    "nox -R -s tests",
    "nox -R -s wheel -- --out wheelhouse",
    "nox -R -s build-matrix -- --level image --wheelhouse wheelhouse",
}
"""This is such a session, or one takes half an hour; here their arguments are checked."""
NOT_OFF_GITHUB = {"sudo rm -rf", "--require-hashes", "cosign sign --yes"}
"""Removes what belongs to the runner; needs a package index; needs the identity that GitHub gives a workflow."""
INSTALL = ".github/install.sh "
"""Needs a package index, too; see test_workflow_installs.py."""


def test_every_run_line_is_accounted_for() -> None:
    known = RUN_IN_THIS_FILE | RUN_ON_A_REGISTRY | SESSIONS_WITH_RUNS_OF_THEIR_OWN
    lines = {line for name in NAMES for line in workflow_steps.run_lines(name)}
    lines = {line for line in lines if not line.startswith(INSTALL)}
    elsewhere = {line for line in lines - known if any(start in line for start in NOT_OFF_GITHUB)}
    assert lines - known - elsewhere == set()
    assert known - lines == set(), "no longer in any workflow"
    assert len(elsewhere) == len(NOT_OFF_GITHUB)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_fails_inside_of_a_pipe_fails_its_step(name: str) -> None:
    """GitHub's own default is `bash -e`, which looks at the last command only."""
    text = (workflow_steps.WORKFLOWS / name).read_text(encoding="utf-8")
    assert "\ndefaults:\n  run:\n    shell: bash " in text
    assert text.count("shell:") == 1


@pytest.mark.parametrize("line", sorted(SESSIONS_WITH_RUNS_OF_THEIR_OWN))
def test_sessions_exist_and_take_their_arguments(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wheelhouse").mkdir()  # the step before has made it
    words = shlex.split(line)
    noxfile = (workflow_steps.ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert words[:3] == ["nox", "-R", "-s"]
    session = words[3]
    assert f'name="{session}"' in noxfile or f"def {session}(" in noxfile
    command = {"build-matrix": "matrix", "wheel": "wheel"}.get(session)
    if command:
        args = cli.parser(command).parse_args([command, *words[5:]])
        assert str(args.out if command == "wheel" else args.wheelhouse[0]) == "wheelhouse"


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
    shown = workflow_steps.run("nox -R -s plan", tools=tools)
    assert shown.returncode == 0, shown.stderr
    assert all(row.id in shown.stdout for row in rows)


def certify(tmp_path: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the job of a row up to where the engine is needed, and say what became of it."""
    tools = workflow_steps.stand_in(tmp_path / "tools")
    given = {"ROW": "cu121", "RUNNER_TEMP": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/gone.sock", **environment}
    for line in (WHEELHOUSE, CERTIFY):
        done = workflow_steps.run(line, tools=tools, environment=given)
    return done


def test_a_job_without_wheels_gets_as_far_as_the_engine(tmp_path: Path) -> None:
    done = certify(tmp_path, {"LEVEL": "auto"})
    assert done.returncode == 3
    assert "gone.sock" in done.stderr


def test_the_wheels_are_made_where_the_rows_look_for_them(tmp_path: Path) -> None:
    tools = workflow_steps.stand_in(tmp_path / "tools", "--wheelhouse", str(tmp_path / "given"))
    made = wheel(tmp_path / "given")
    environment = {"RUNNER_TEMP": str(tmp_path), "ASSAY_STATE": str(tmp_path / "state")}
    done = workflow_steps.run(WHEELS, tools=tools, environment=environment)
    assert done.returncode == 0, done.stderr
    # As the artefact goes from one job to the others.
    (patterns,) = [one for one in workflow_steps.uploads("build-matrix.yml") if "wheels" in one[0]]
    kept = uploaded(tmp_path, [pattern.removeprefix("${{ runner.temp }}/") for pattern in patterns])
    assert kept == {tmp_path / "wheels" / made.name}
    download = workflow_steps.jobs("build-matrix.yml")["certify"].partition("download-artifact@")[2]
    assert workflow_steps.values(download, "path")[0] == "${{ runner.temp }}/wheels"
    assert workflow_steps.values(download, "pattern")[0].split()[0] == "wheels"
    assert workflow_steps.values(download, "merge-multiple") == ["true"]
    row = load(workflow_steps.ROOT / "matrix.toml").select(["cu121"])[0]
    found = wheels.lookup(row, wheelhouses=[tmp_path / "wheels"])
    assert found is not None
    assert found.sha256 == file_sha256(made)


def test_rows_go_on_without_the_wheels_and_none_goes_on_when_cancelled() -> None:
    jobs = workflow_steps.jobs("build-matrix.yml")
    assert workflow_steps.values(jobs["certify"], "needs") == ["[plan, wheels]"]
    assert workflow_steps.values(jobs["certify"], "if")[0] == "${{ !cancelled() && needs.plan.result == 'success' }}"
    assert "secrets." not in jobs["wheels"] + jobs["certify"]


def test_what_is_to_be_published_is_certified_at_the_level_that_publishing_asks_for() -> None:
    """Else a runner without a GPU certifies at level image, and only the last job refuses."""
    job = workflow_steps.jobs("build-matrix.yml")["certify"]
    (level,) = workflow_steps.values(job, "LEVEL")
    assert level == "${{ inputs.publish && matrix.expect == 'certify' && matrix.level || 'auto' }}"
    jobs = plan.github(load(workflow_steps.ROOT / "matrix.toml").rows)["include"]
    assert {one["level"] for one in jobs} == {"gpu"}
    for value in ("gpu", "image", "auto"):
        words = shlex.split(CERTIFY.replace('"$LEVEL"', value).replace(' --wheelhouse "$RUNNER_TEMP/wheels"', ""))
        assert cli.parser("matrix").parse_args(["matrix", *words[5:]]).level == value


def test_only_the_default_branch_publishes_not_a_tag_of_its_name() -> None:
    job = " ".join(workflow_steps.jobs("build-matrix.yml")["publish"].split())
    assert "github.ref == format('refs/heads/{0}', github.event.repository.default_branch)" in job
    assert "ref_name" not in job


def test_publishing_from_another_branch_is_refused_at_once(tmp_path: Path) -> None:
    """The job that publishes would only be skipped, hours later and without a word."""
    jobs = workflow_steps.jobs("build-matrix.yml")
    first = jobs["plan"].partition("    steps:\n")[2].partition("\n      - uses:")[0]
    elsewhere = "github.ref != format('refs/heads/{0}', github.event.repository.default_branch)"
    assert f"if: ${{{{ inputs.publish && {elsewhere} }}}}" in first
    environment = {"BRANCH": "main", "GITHUB_REF": "refs/heads/mine"}
    done = workflow_steps.run(REFUSE, tools=tmp_path, environment=environment)
    assert done.returncode == 1
    assert done.stdout == (
        "::error::only the branch main publishes, and this is refs/heads/mine: start it there, or do not publish\n"
    )


def test_images_travel_only_where_they_are_to_be_published() -> None:
    """Each is an artefact of 3 GB, and the weekly run publishes none."""
    job = workflow_steps.jobs("build-matrix.yml")["certify"]
    steps = [step for step in job.split("\n      - ") if "images.py save" in step or "name: image-" in step]
    assert len(steps) == 2
    assert all(step.startswith("if: ${{ inputs.publish && matrix.expect == 'certify' }}\n") for step in steps)
    (path,) = workflow_steps.values(steps[1], "path")
    saved = workflow_steps.values(steps[0], "run")[0].rpartition(" ")[2]
    assert path.replace("${{ runner.temp }}", "$RUNNER_TEMP") == saved.strip('"')


@pytest.mark.parametrize("name", NAMES)
def test_a_job_that_is_run_again_may_put_its_artefact_in_place_of_the_old_one(name: str) -> None:
    text = (workflow_steps.WORKFLOWS / name).read_text(encoding="utf-8")
    steps = [step.partition("\n      - ")[0] for step in text.split("uses: actions/upload-artifact@")[1:]]
    assert steps
    for step in steps:
        assert workflow_steps.values(step, "overwrite")[0].split()[0] == "true"


@pytest.mark.parametrize("name", NAMES)
def test_jobs_that_hold_images_have_room_for_them_and_only_hosted_runners_lose_anything(name: str) -> None:
    """An image takes 6.5 GB, what it is made of as much again, and a hosted runner has 14 GB for sure."""
    jobs = workflow_steps.jobs(name)
    holding = {job for job, text in jobs.items() if re.search(r"nox -R -s (build-matrix|wheel)|images\.py load", text)}
    assert holding == {job for job, text in jobs.items() if "sudo rm -rf" in text}
    for job in holding:
        (step,) = [step for step in jobs[job].split("\n      - ") if "sudo rm -rf" in step]
        hosted = workflow_steps.values(jobs[job], "runs-on") == ["ubuntu-24.04"]
        assert hosted or step.startswith("if: ${{ runner.environment == 'github-hosted' }}\n")


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


def test_a_summary_without_reports_says_so_and_a_long_reason_is_cut(tmp_path: Path) -> None:
    """GitHub shows no summary of more than 1 MiB."""
    (tmp_path / ".github").symlink_to(workflow_steps.ROOT / ".github")
    summary = tmp_path / "summary.md"

    def show() -> str:
        environment = {"GITHUB_STEP_SUMMARY": str(summary)}
        done = workflow_steps.run(SUMMARY, tools=tmp_path, cwd=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        return summary.read_text()

    assert show().startswith("No row left a report: ")
    summary.unlink()
    row = load(workflow_steps.ROOT / "matrix.toml").rows[0]
    long = replace(_row_report(row, good=False), why="&" * 10_000)
    rows = tuple(replace(long, id=f"r{number}") for number in range(plan.GITHUB_JOBS))
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "report.json").write_text(json.dumps(Report(level=Level.IMAGE, rows=rows).to_json()))
    shown = show()
    assert shown.count("the report has all of it") == plan.GITHUB_JOBS
    assert len(shown.encode()) < 1 << 20


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
