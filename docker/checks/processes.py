"""Run one command in its own process group, with a time limit and bounded output; say honestly how it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess  # the checks' own commands, never a shell
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT_LIMIT = 64 * 1024
ANSWER_LIMIT = 4 * 1024 * 1024
FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
"""Signals that end a process for reasons that lie outside of it: no memory left, no time left, a stop."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    exit_code: as the process gave it, or None when a signal or the time limit ended it. signal: name such as
    `SIGSEGV`. output: stdout and stderr as they came, the last 64 KiB. answer: what it wrote to its answer
    descriptor. out_of_memory: the kernel killed a process of this container for memory while the command ran.
    """

    exit_code: int | None
    signal: str | None
    timed_out: bool
    output: str
    answer: bytes
    seconds: float
    out_of_memory: bool

    @property
    def how(self) -> str:
        """Say in one line how the command ended."""
        if self.timed_out:
            return f"still running after {self.seconds:.0f} s, killed"
        if self.signal and self.out_of_memory:
            return f"killed by {self.signal}: the container's memory limit was reached"
        if self.signal:
            return f"killed by {self.signal}"
        return f"exit code {self.exit_code}"


class _Reader(threading.Thread):
    """Reads a descriptor to its end and keeps the last (or, for an answer, the first) bytes of it."""

    def __init__(self, descriptor: int, limit: int) -> None:
        super().__init__(daemon=True)
        self.descriptor, self.limit, self.kept = descriptor, limit, b""
        self.start()

    def run(self) -> None:
        while True:
            try:
                chunk = os.read(self.descriptor, 65536)
            except OSError:
                break
            if not chunk:
                break
            self.kept = (self.kept + chunk)[-self.limit :]

    def finish(self, seconds: float) -> bytes:
        """Return what was read. A stray grandchild may hold the other end open: wait some seconds for it, no longer."""
        self.join(seconds)
        if not self.is_alive():
            os.close(self.descriptor)
        return self.kept


def run(
    command: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    answer_option: str | None = None,
) -> Ended:
    """Run `command` and wait for it at most `timeout` seconds; then its whole process group is killed, in any case.

    answer_option: when given, the command gets `<answer_option> <descriptor>` and may write an answer there; its own
        children do not have to inherit it. Raises OSError when the command cannot be started.
    """
    started, killed_before = time.monotonic(), _memory_kills()
    output_end, output_write = os.pipe()
    answer_end, answer_write = os.pipe()
    try:
        process = subprocess.Popen(
            [*command, *([answer_option, str(answer_write)] if answer_option else [])],
            stdin=subprocess.DEVNULL,
            stdout=output_write,
            stderr=output_write,
            env=None if environment is None else dict(environment),
            pass_fds=(answer_write,) if answer_option else (),
            start_new_session=True,
        )
    except OSError:
        for descriptor in (output_end, answer_end):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (output_write, answer_write):
            os.close(descriptor)
    output, answer = _Reader(output_end, OUTPUT_LIMIT), _Reader(answer_end, ANSWER_LIMIT)
    timed_out = False
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        _kill_group(process.pid)
        code = process.wait()
    signalled = code < 0 and not timed_out
    return Ended(
        exit_code=code if code >= 0 and not timed_out else None,
        signal=signal_name(-code) if signalled else None,
        timed_out=timed_out,
        output=output.finish(1.0).decode("utf-8", "replace"),
        answer=answer.finish(10.0),  # what came of the check must not depend on how busy the machine is
        seconds=time.monotonic() - started,
        out_of_memory=_memory_kills() > killed_before,
    )


def clip(text: str, limit: int = 12_000) -> str:
    """Return `text`, with its middle left out where it is longer than `limit` characters; the end tells most."""
    if len(text) <= limit:
        return text
    head = limit // 4
    return f"{text[:head]}\n[... {len(text) - limit} characters left out ...]\n{text[head - limit :]}"


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def signal_name(number: int) -> str:
    """Return a signal's name, such as `SIGSEGV`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _memory_kills() -> int:
    """Return how many processes the kernel has killed for this container's memory limit; 0 where it does not say."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            match = re.search(r"^oom_kill (\d+)", Path(path).read_text(encoding="ascii"), re.MULTILINE)
        except OSError:
            continue
        if match:
            return int(match[1])
    return 0
