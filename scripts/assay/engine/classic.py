"""Reads the classic builder's answer, for engines without BuildKit: numbered steps in plain text, one by one."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from assay.engine.events import BuildEvent, Mask, OnEvent, StepStatus
from assay.engine.progress import TAIL_LINES
from assay.redact import without_passwords

STEP = re.compile(r"^Step \d+/\d+ : ")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CACHED = " ---> Using cache"
# What the builder says about its own containers and layers rather than what the step printed.
OWN_WORDS = re.compile(r"^(\s*---> |Removing intermediate container |Successfully (built|tagged) )")


class ClassicProgress:
    """The state of one classic build."""

    def __init__(
        self,
        on_event: OnEvent,
        log: TextIO,
        clock: Callable[[], float] = time.monotonic,
        mask: Mask = without_passwords,
    ) -> None:
        self._on_event = on_event
        self._mask = mask
        self._log = log
        self._clock = clock
        self._since = clock()
        self._cached = False
        self._unfinished = ""
        self.step = ""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, message: dict[str, Any]) -> None:
        """Take in one message of the stream; only its `stream` text matters here."""
        *lines, self._unfinished = (self._unfinished + str(message.get("stream", ""))).split("\n")
        for line in lines:
            self._take(line.rstrip("\r"))

    def finish(self, error: str | None = None) -> None:
        """End the last step, with the error that ended the build, if one did."""
        if self._unfinished:
            self._take(self._unfinished)
            self._unfinished = ""
        if error is not None:
            self._log.write(f"ERROR: {error}\n")
        if self.step:
            status: StepStatus = "error" if error is not None else "cached" if self._cached else "done"
            self._on_event(BuildEvent(step=self.step, status=status, seconds=self._clock() - self._since))
        self.step = self.step if error is not None else ""

    def _take(self, line: str) -> None:
        line = self._mask(COLOUR.sub("", line))  # the builder paints what a step prints on stderr
        self._log.write(line + "\n")
        self._log.flush()
        if STEP.match(line):
            self.finish()
            self.step, self._since, self._cached = line, self._clock(), False
            self.tail.clear()
            self._on_event(BuildEvent(step=line, status="started"))
        elif line == CACHED:
            self._cached = True
        elif self.step and line and not OWN_WORDS.match(line):
            self.tail.append(line)
            seconds = self._clock() - self._since
            self._on_event(BuildEvent(step=self.step, status="progress", seconds=seconds, line=line))
