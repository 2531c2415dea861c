"""Runs the checks of a row inside an image and gathers their answers; a check without one is an `error`, with why."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from assay import releases
from assay.checks import picture
from assay.checks.definitions import Check, folder, selected
from assay.checks.expectations import expectation
from assay.engine import ContainerResult, Engine, GpuAccess, Mount
from assay.errors import EngineError
from assay.files import lock_file, write_json
from assay.findings import Finding, Level, Status
from assay.matrix.row import Row
from assay.wheels import Wheel

CHECKS_IN_IMAGE = "/opt/assay/checks"
EXPECT_IN_IMAGE = "/opt/assay/expect.json"
GPU_TURN_IN_IMAGE = "/opt/assay/gpu-turn"  # see `take_turn` in docker/checks/runner.py
# Isolated (-I), without `site` (-S): the runner, which alone knows the token, runs none of the image's sitecustomize,
# .pth files or PYTHONPATH. The checks themselves run in processes that start as a user's would.
COMMAND = ("python", "-I", "-S", f"{CHECKS_IN_IMAGE}/run.py")
GIB = 1 << 30
# At level `gpu` the sample is drawn with full-size models, which pass through host memory.
MEMORY_BYTES = {Level.IMAGE: 8 * GIB, Level.GPU: 48 * GIB}
SPARE_SECONDS = 120.0
"""Beyond the sum of the checks' own time limits, for the container's start and for processes to be taken down."""
WAITING_SECONDS = 3600.0
"""At level gpu, for the turns of other rows on the same GPU: four whole soaks."""


def run(
    engine: Engine,
    image: str,
    row: Row,
    *,
    level: Level,
    gpu: GpuAccess | None,
    wheel: Wheel | None,
    out: Path,
    cancel: threading.Event | None = None,
    on_finding: Callable[[Finding], None] | None = None,
    on_waiting: Callable[[str], None] | None = None,
    on_started: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Run every check of a row at a level in a hardened container of its image; return one finding per check.

    out: the run's output folder; `expect.json`, and `sample.png` where a picture was drawn, are written to the row's
        folder there.
    on_finding: called with each finding as soon as it is known. on_waiting: called with the id of a check that waits
        until another row is done with the GPU. on_started: called with the id of a check that begins.
    A container that dies, a missing Python, an engine that fails: all become `error` findings that say so.
    Raises Cancelled when `cancel` is set, IngredientError when the engine does not hold the image.
    """
    expect = expectation(
        row,
        level=level,
        wheel=wheel,
        releases=releases.load(),
        gpu=gpu,
        seed=secrets.randbelow(1 << 31),
    )
    checks = selected(expect, level)
    expect_file = out / row.id / "expect.json"
    write_json(expect_file, expect)
    listener = Listener(secrets.token_hex(16), [check.id for check in checks], on_finding, on_waiting, on_started)
    timeout = sum(check.timeout for check in checks) + SPARE_SECONDS
    result: ContainerResult | EngineError
    with for_all_to_read(folder(), out / row.id) as readable:
        mounts = [Mount(source=readable, target=CHECKS_IN_IMAGE), Mount(source=expect_file, target=EXPECT_IN_IMAGE)]
        if gpu is not None:
            mounts.append(Mount(source=lock_file(gpu.uuid), target=GPU_TURN_IN_IMAGE))
            timeout += WAITING_SECONDS
        try:
            # The container's own HOME is a folder that can be written to; this one tells where a user's packages lie.
            home = engine.inspect(image).environment.get("HOME", "")
            result = engine.run(
                image,
                COMMAND,
                mounts=mounts,
                gpu=gpu,
                memory_bytes=MEMORY_BYTES[level],
                timeout=timeout,
                on_line=listener.hear,
                environment={"ASSAY_TOKEN": listener.token, "ASSAY_HOME": home},
                cancel=cancel,
            )
        except EngineError as error:
            result = error
    for finding in unanswered(checks, listener, result):
        listener.accept(finding)
    return picture.keep([listener.findings[check.id] for check in checks], out / row.id / "sample.png")


@contextlib.contextmanager
def for_all_to_read(checks: Path, beside: Path) -> Iterator[Path]:
    """Yield a copy of the checks' folder, below `beside`, that every user of an image can read; it is gone afterwards.

    A checkout made under umask 077 is its owner's alone: neither an image's own user gets in there, nor root in a
    container without capabilities.
    """
    with tempfile.TemporaryDirectory(dir=beside, prefix=".checks.") as scratch:
        Path(scratch).chmod(0o755)  # an engine with user namespaces goes there as another user
        copy = Path(scratch, "checks")
        shutil.copytree(checks, copy, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield copy


class Listener:
    """Takes the runner's lines: keeps the first answer to each check that was asked, and what was started."""

    def __init__(
        self,
        token: str,
        asked: Sequence[str],
        on_finding: Callable[[Finding], None] | None = None,
        on_waiting: Callable[[str], None] | None = None,
        on_started: Callable[[str], None] | None = None,
    ) -> None:
        self.token = token
        self.asked = frozenset(asked)
        self.findings: dict[str, Finding] = {}
        self.started: list[str] = []
        self.broken: dict[str, str] = {}
        self.finished = False
        self._on_finding, self._on_waiting, self._on_started = on_finding, on_waiting, on_started

    def hear(self, line: str) -> None:
        """Take one line of the container's output. Lines without the token, or that do not parse, tell nothing."""
        token, _, text = line.strip().partition(" ")
        if token != self.token:
            return
        try:
            # NaN and Infinity are no JSON; a certificate could not hold the very measurement that rejects a row.
            event: dict[str, Any] = printable(json.loads(text, parse_constant=str))
            if "finding" in event:
                self.accept(Finding.from_json(event["finding"]))
            elif "started" in event:
                self.started.append(str(event["started"]))
                if self._on_started is not None and event["started"] in self.asked:
                    self._on_started(event["started"])
            elif "waiting" in event:
                if self._on_waiting is not None and event["waiting"] in self.asked:
                    self._on_waiting(event["waiting"])
            elif "broken" in event:
                self.broken[event["broken"]["family"]] = event["broken"]["evidence"]
            elif "finished" in event:
                self.finished = True
        except (ValueError, TypeError, KeyError):
            return

    def accept(self, finding: Finding) -> None:
        """Keep a finding and pass it on, unless nobody asked for it or its check has answered before."""
        if finding.check not in self.asked or finding.check in self.findings:
            return
        self.findings[finding.check] = finding
        if self._on_finding is not None:
            self._on_finding(finding)


def printable(value: Any) -> Any:
    """Return a value of JSON whose texts can be written as UTF-8: file names of an image need not be."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [printable(one) for one in value]
    if isinstance(value, dict):
        return {printable(name): printable(one) for name, one in value.items()}
    return value


def unanswered(checks: Sequence[Check], listener: Listener, result: ContainerResult | EngineError) -> list[Finding]:
    """Return an `error` finding for every check that gave no answer, saying why it could not."""
    how, evidence = ending(result)
    findings = []
    for check in checks:
        if check.id in listener.findings:
            continue
        family = check.function.__module__.rpartition(".")[2]
        if family in listener.broken:
            why, proof = f"{family}.py cannot be imported by the image's Python", listener.broken[family]
        elif check.id in listener.started:
            why, proof = f"the container ended while this check ran: {how}", evidence
        elif listener.finished:
            why, proof = "the runner in the image does not know this check", evidence
        else:
            why, proof = f"the container ended before this check: {how}", evidence
        findings.append(Finding(check=check.id, status=Status.ERROR, measured=why, evidence=proof or why))
    return findings


def ending(result: ContainerResult | EngineError) -> tuple[str, str]:
    """Return how the container ended, in one line, and the last lines that it printed to stderr."""
    if isinstance(result, EngineError):
        text = str(result)
        if "executable file not found" in text or "no such file or directory" in text:
            return f"the image has no `{COMMAND[0]}` on PATH", text
        return "the engine failed", text
    evidence = "\n".join(result.stderr_tail)
    if result.timed_out:
        return f"its time limit was reached after {result.seconds:.0f} s", evidence
    if result.oom_killed:
        return "its memory limit was reached", evidence
    if result.exit_code in (126, 127):
        return f"`{COMMAND[0]}` could not be started (exit code {result.exit_code})", evidence
    return f"exit code {result.exit_code}", evidence
