"""Runs the `run:` lines of the workflows off GitHub: as bash, with the sessions of the real noxfile.

Inside a nox session there is no nox, and none should be started: a stand-in called `nox` on PATH loads the noxfile and
runs the session's own code, only without making it a virtual environment. Beside it lies an `assay`, for the steps that
call it themselves.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
NAMES = ("ci.yml", "build-matrix.yml")

STAND_IN = """\
#!{python}
import importlib.util, subprocess, sys, types

class Session:
    def __init__(self, posargs): self.posargs = posargs
    def install(self, *arguments): pass
    def run(self, program, *arguments, success_codes=(0,)):
        command = [sys.executable, "-m", program, *arguments, *(extra if program == "assay" else [])]
        code = subprocess.run(command).returncode
        if code not in success_codes: sys.exit(code)

extra = {extra!r}
sessions = {{}}
fake = types.ModuleType("nox")
fake.options, fake.Session = types.SimpleNamespace(), Session
def session(function=None, *, name=None):
    def add(function):
        sessions[name or function.__name__] = function
        return function
    return add(function) if function else add
fake.session = session
sys.modules["nox"] = fake
spec = importlib.util.spec_from_file_location("noxfile", {noxfile!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
reuse, flag, name, *rest = sys.argv[1:]
assert (reuse, flag) == ("-R", "-s"), sys.argv
sessions[name](Session(rest[1:] if rest[:1] == ["--"] else rest))
"""


def run_lines(workflow: str) -> list[str]:
    """Return every `run:` of a workflow, in order, block scalars unindented."""
    return values((WORKFLOWS / workflow).read_text(encoding="utf-8"), "run")


def uploads(workflow: str) -> list[list[str]]:
    """Return the patterns of every artefact that a workflow uploads, in order."""
    text = (WORKFLOWS / workflow).read_text(encoding="utf-8")
    steps = [step.partition("\n      - ")[0] for step in text.split("uses: actions/upload-artifact@")[1:]]
    return [path.splitlines() for step in steps for path in values(step, "path")]


def jobs(workflow: str) -> dict[str, str]:
    """Return the text of every job of a workflow by its name, in order."""
    text = (WORKFLOWS / workflow).read_text(encoding="utf-8").partition("\njobs:\n")[2]
    blocks = re.split(r"^  (?=[\w-]+:$)", text, flags=re.MULTILINE)[1:]
    return {block.partition(":")[0]: block for block in blocks}


def values(text: str, key: str) -> list[str]:
    """Return every value of a key, in order, block scalars unindented."""
    lines = text.splitlines()
    found: list[str] = []
    for number, line in enumerate(lines):
        match = re.match(rf"( *(?:- )?){key}: (.*)", line)
        if not match:
            continue
        if match[2] != "|":
            found.append(match[2])
            continue
        block = []
        for following in lines[number + 1 :]:
            if following.strip() and len(following) - len(following.lstrip()) <= len(match[1]):
                break
            block.append(following[len(match[1]) + 2 :])
        found.append("\n".join(block).strip())
    return found


def stand_in(folder: Path, *extra: str) -> Path:
    """Write `nox` and `assay` into a folder for PATH. extra: arguments that every `assay` command of the test needs."""
    folder.mkdir(parents=True, exist_ok=True)
    nox = STAND_IN.format(python=sys.executable, noxfile=str(ROOT / "noxfile.py"), extra=list(extra))
    assay = f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", "assay"])} "$@" {shlex.join(extra)}\n'
    for name, content in {"nox": nox, "assay": assay}.items():
        path = folder / name
        path.write_text(content)
        path.chmod(0o755)
    return folder


def run(
    script: str, *, tools: Path, environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a step's script as GitHub does where the shell is `bash` by its name."""
    path = f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=cwd,
        env={**os.environ, **(environment or {}), "PATH": path},
        capture_output=True,
        text=True,
    )
