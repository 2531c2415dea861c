"""What the workflows install: by one script, by hash, and nothing that was not prepared."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import workflow_steps
from workflow_steps import NAMES

INSTALL = ".github/install.sh "


def test_the_job_with_the_key_installs_nothing_that_is_not_pinned() -> None:
    job = workflow_steps.jobs("build-matrix.yml")["publish"]
    text = "\n".join(workflow_steps.values(job, "run"))
    installs = [shlex.split(line) for line in text.splitlines() if " install " in line]
    assert len(installs) == 2
    requirements, assay = installs
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(requirements)
    assert (workflow_steps.ROOT / requirements[requirements.index("-r") + 1]).is_file()
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(assay)
    assert not re.search(r"\bnox\b(?! -s lock)", text), "a session would install what its ranges allow"


INSTALLERS = re.compile(r"\b(?:pip|pipx|uv|uvx|apt-get|apt|npm|npx|curl|wget|go)\b")


@pytest.mark.parametrize("name", NAMES)
def test_every_other_job_installs_by_one_script_and_runs_what_that_has_prepared(name: str) -> None:
    """A session that is not prepared would make its own environment, of whatever its ranges allow that day."""
    for job, text in workflow_steps.jobs(name).items():
        if job == "publish":
            continue
        runs = workflow_steps.values(text, "run")
        assert not [line for line in runs if INSTALLERS.search(line)], job
        (install,) = [line for line in runs if line.startswith(INSTALL)]
        prepared = shlex.split(install)[1:]
        sessions = [words for line in runs for words in re.findall(r"\bnox\b ([^\n]*)", line)]
        assert sessions, job
        for words in sessions:
            assert words.split()[:2] == ["-R", "-s"], f"{job}: nox {words}"
            assert words.split()[2] in prepared, f"{job}: nox {words}"


def test_the_script_that_installs_takes_nothing_without_its_hash() -> None:
    script = (workflow_steps.ROOT / INSTALL.strip()).read_text(encoding="utf-8").replace("\\\n", "")
    commands = [line for line in script.splitlines() if not line.startswith("#")]
    fetching = [line for line in commands if INSTALLERS.search(line.partition("echo")[0]) and "-m pip" in line]
    download, nox = fetching
    assert {"download", "--require-hashes", "--no-deps", "--only-binary"} <= set(shlex.split(download))
    lock = shlex.split(download)[shlex.split(download).index("--requirement") + 1]
    assert (workflow_steps.ROOT / lock).is_file()
    # Everything after it has no index to ask.
    offline = next(number for number, line in enumerate(commands) if "export PIP_NO_INDEX=1 PIP_FIND_LINKS=" in line)
    assert commands.index(download) < offline < commands.index(nox)
    assert offline < next(number for number, line in enumerate(commands) if "nox --install-only" in line)
    assert "uv" not in script.split()


def test_the_script_that_installs_says_what_a_runner_lacks(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")  # as one without the module `ensurepip`
    (tools / "python3").chmod(0o755)
    environment = {"RUNNER_TEMP": str(tmp_path), "GITHUB_PATH": str(tmp_path / "path")}
    done = workflow_steps.run(f"{INSTALL}plan", tools=tools, environment=environment)
    assert done.returncode == 1
    assert f"::error::{tools}/python3: this runner needs Python 3.10" in done.stdout
    assert "apt-get install python3-venv" in done.stdout
    assert not (tmp_path / "path").exists()
    assert workflow_steps.run(INSTALL, tools=tools, environment=environment).returncode == 2
