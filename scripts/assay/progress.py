"""What a maintainer sees while rows are being built and judged.

On a terminal: a table that redraws itself, one line per row, with what the row is doing, for how long, and how many
bytes. Elsewhere (a log file, CI): a line whenever a row changes what it does, and one every `HEARTBEAT` seconds for
rows that stay at it, so that a long step never looks like a hang.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from assay.engine import BuildEvent
from assay.report.words import OUTCOME_STYLE, OUTCOME_WORDS, Outcome, human_bytes, in_full, one_line

HEARTBEAT = 20.0


@dataclass
class _State:
    phase: str = "waiting"
    detail: str = ""
    current: int | None = None
    total: int | None = None
    started: float | None = None
    phase_started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    verdict: str = ""
    outcome: Outcome = "as-expected"


class View:
    """A live view of rows. Its methods may be called from any thread."""

    def __init__(
        self,
        rows: Sequence[str],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._states = {row: _State(phase_started=clock()) for row in rows}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._width = max((len(row) for row in rows), default=0)

    @property
    def terminal(self) -> bool:
        """Whether somebody watches a screen, rather than a log."""
        return self._console.is_terminal

    def note(self, text: str) -> None:
        """Say something that belongs to no row: an engine was started, a package is being installed."""
        self._print(Text(f"assay: {text}"))

    def phase(self, row: str, phase: str, detail: str = "") -> None:
        """Say that a row begins something: `base`, `wheel`, `build`, `checks`."""
        with self._lock:
            state = self._states[row]
            now = self._clock()
            state.started = state.started if state.started is not None else now
            state.phase, state.detail, state.phase_started = phase, detail, now
            state.current = state.total = None
        if not self.terminal:
            self._line(row, phase, detail)

    def detail(
        self, row: str, detail: str, current: int | None = None, total: int | None = None, *, announce: bool = True
    ) -> None:
        """Say where inside its phase a row is: the build step or check, and bytes done of all, where known.

        announce: worth a line of its own in a log; other details are seen there when a heartbeat falls on them.
        """
        with self._lock:
            state = self._states[row]
            changed = detail != state.detail
            state.detail, state.current, state.total = detail, current, total
        if changed and announce and not self.terminal:
            self._line(row, state.phase, detail)

    def verdict(self, row: str, verdict: str, why: str, *, outcome: Outcome, cached: bool = False) -> None:
        """Say that a row is judged, and how that stands to what was expected of it."""
        with self._lock:
            state = self._states[row]
            now = self._clock()
            state.started = state.started if state.started is not None else now
            state.verdict, state.outcome, state.ended = verdict, outcome, now
            state.detail = f"{why} (from its certificate)" if cached else why
            if outcome != "as-expected":
                state.detail = f"{OUTCOME_WORDS[outcome]}: {state.detail}"
            seconds = now - state.started
        if not self.terminal:
            self._line(row, verdict, f"{in_full(state.detail)} [{seconds:.0f} s]")

    @contextmanager
    def live(self) -> Iterator[View]:
        """Show the rows until the block ends."""
        if self.terminal:
            with Live(get_renderable=self._render, console=self._console, refresh_per_second=4):
                yield self
            return
        beat = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        beat.start()
        try:
            yield self
        finally:
            self._stop.set()
            beat.join()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            # Told under the lock, so that no row is heard of again after its verdict.
            with self._lock:
                now = self._clock()
                for row, state in self._states.items():
                    seconds = now - state.phase_started
                    if state.started is not None and state.ended is None and seconds >= HEARTBEAT:
                        what = " ".join(filter(None, [state.detail, _amount(state)]))
                        # The time is the phase's: of a step or a check alone it would be too much.
                        self._line(row, state.phase, f"{what} ... {seconds:.0f} s of {state.phase}".lstrip())

    def _line(self, row: str, phase: str, detail: str) -> None:
        self._print(Text(f"{time.strftime('%H:%M:%S')} {row:<{self._width}}  {phase:<12} {detail}".rstrip()))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)

    def _render(self) -> RenderableType:
        grid = Table(box=box.SIMPLE_HEAD, expand=True)
        grid.add_column("row", no_wrap=True)
        grid.add_column("state", no_wrap=True)
        grid.add_column("what", ratio=1, no_wrap=True, overflow="ellipsis")
        grid.add_column("bytes", no_wrap=True, justify="right")
        grid.add_column("time", no_wrap=True, justify="right")
        now = self._clock()
        with self._lock:
            for row, state in self._states.items():
                waiting = "dim" if state.started is None else "cyan"
                style = OUTCOME_STYLE[state.outcome] if state.verdict else waiting
                seconds = 0.0 if state.started is None else (state.ended or now) - state.started
                grid.add_row(
                    Text(row),
                    Text(state.verdict or state.phase, style=style),
                    Text(in_full(state.detail) if state.verdict else one_line(state.detail)),
                    Text("" if state.verdict else _amount(state)),
                    Text(f"{int(seconds) // 60}:{int(seconds) % 60:02d}"),
                )
        return Group(grid)


def _amount(state: _State) -> str:
    if not state.current and not state.total:
        return ""
    if not state.total:
        return human_bytes(state.current or 0)
    return f"{human_bytes(state.current or 0)} of {human_bytes(state.total)}"


_COUNTED = re.compile(r"\[\d+/\d+\]")
"""How a long step counts what it has done: `[7/25] flash_fwd_hdim96_bf16_sm80.cu 41 s`."""
_MOUNTS = re.compile(r"--mount=\S+\s*")


def short_step(step: str, limit: int = 100) -> str:
    """Return a build step in one line: without its mounts, and with its end left out where it is long."""
    line = " ".join(_MOUNTS.sub("", step).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def follow_build(view: View, row: str) -> Callable[[BuildEvent], None]:
    """Return what turns build events into the row's line in the view."""

    def follow(event: BuildEvent) -> None:
        if event.status in ("started", "progress"):
            view.detail(
                row,
                event.line or short_step(event.step),
                event.current_bytes,
                event.total_bytes,
                announce=event.line is None or _COUNTED.match(event.line) is not None,
            )

    return follow
