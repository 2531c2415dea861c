"""Turns BuildKit's progress messages into build events and a readable log, and keeps what each step printed."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TextIO

from assay.engine.events import BuildEvent, Mask, OnEvent, StepStatus
from assay.engine.trace import Trace, Vertex, VertexLog, VertexStatus
from assay.redact import without_passwords

# Enough for a Python traceback with the compiler's words above it; the log file has everything.
TAIL_LINES = 200
LINE_END = re.compile(rb"\r\n|\n|\r")
CANCELLED = "context canceled"


@dataclass
class Step:
    """One step as far as it is known. `number` is its place in the log, in the order of appearance."""

    number: int
    name: str
    started: float | None = None
    over: bool = False
    error: str = ""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    unfinished: dict[int, bytes] = field(default_factory=dict)


class Progress:
    """The state of one BuildKit build. Not thread-safe: one build feeds it from one thread."""

    def __init__(self, on_event: OnEvent, log: TextIO, mask: Mask = without_passwords) -> None:
        self._on_event = on_event
        self._mask = mask
        self._log = log
        self._steps: dict[str, Step] = {}

    @property
    def failed(self) -> Step | None:
        """The step that failed: the first with an error of its own, not one that was stopped because of it."""
        errors = [step for step in self._steps.values() if step.error]
        own = [step for step in errors if CANCELLED not in step.error]
        return next(iter(own or errors), None)

    @property
    def running(self) -> list[Step]:
        """The steps that have started and not ended."""
        return [step for step in self._steps.values() if step.started is not None and not step.over]

    def feed(self, trace: Trace) -> None:
        """Take in one message. Its log lines come before the ends of their steps, so that a tail is never cut."""
        for vertex in trace.vertexes:
            self._start(vertex)
        for status in trace.statuses:
            self._status(status)
        for log in trace.logs:
            self._print(log)
        for vertex in trace.vertexes:
            self._end(vertex)

    def _start(self, vertex: Vertex) -> None:
        step = self._steps.setdefault(vertex.digest, Step(len(self._steps) + 1, vertex.name))
        if vertex.started is None or (step.started is not None and not (step.over and vertex.started > step.started)):
            return
        # A step that was over and starts again was only looked up in the cache the first time.
        step.started, step.over = vertex.started, False
        self._write(step, step.name)
        if not vertex.cached:
            self._tell(step, "started")

    def _status(self, status: VertexStatus) -> None:
        step = self._steps.get(status.vertex)
        if step is None:
            return
        if status.completed is not None:
            self._write(step, f"{status.id} done")
        self._tell(
            step,
            "progress",
            seconds=_seconds(step, status.timestamp),
            item=status.id,
            current_bytes=status.current,
            total_bytes=status.total,
        )

    def _print(self, log: VertexLog) -> None:
        step = self._steps.get(log.vertex)
        if step is None:
            return
        *lines, rest = LINE_END.split(step.unfinished.pop(log.stream, b"") + log.message)
        if rest:
            step.unfinished[log.stream] = rest
        for line in lines:
            self._line(step, line, _seconds(step, log.timestamp))

    def _end(self, vertex: Vertex) -> None:
        step = self._steps[vertex.digest]
        if step.over or vertex.completed is None or vertex.started != step.started:
            return
        step.over = True
        seconds = _seconds(step, vertex.completed)
        for rest in step.unfinished.values():
            self._line(step, rest, seconds)
        step.unfinished.clear()
        step.error = self._mask(vertex.error)
        if step.error:
            self._write(step, f"ERROR: {step.error}")
            self._tell(step, "error", seconds=seconds)
        elif vertex.cached:
            self._write(step, "CACHED")
            self._tell(step, "cached")
        else:
            self._write(step, f"DONE {seconds:.1f}s")
            self._tell(step, "done", seconds=seconds)

    def _line(self, step: Step, raw: bytes, seconds: float) -> None:
        line = self._mask(raw.decode("utf-8", "replace"))
        step.tail.append(line)
        self._write(step, f"{seconds:.3f} {line}")
        self._tell(step, "progress", seconds=seconds, line=line)

    def _write(self, step: Step, text: str) -> None:
        self._log.write(f"#{step.number} {text}\n")
        self._log.flush()

    def _tell(
        self,
        step: Step,
        status: StepStatus,
        *,
        seconds: float = 0.0,
        item: str = "",
        current_bytes: int = 0,
        total_bytes: int = 0,
        line: str | None = None,
    ) -> None:
        self._on_event(
            BuildEvent(
                step=step.name,
                status=status,
                seconds=seconds,
                item=item,
                current_bytes=current_bytes,
                total_bytes=total_bytes,
                line=line,
            )
        )


def _seconds(step: Step, now: float | None) -> float:
    return max(0.0, now - step.started) if now is not None and step.started is not None else 0.0
