"""What a build tells while it runs, and how notes reach the user."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

StepStatus = Literal["started", "cached", "progress", "done", "error"]


@dataclass(frozen=True, kw_only=True)
class BuildEvent:
    """One piece of news about one build step.

    step: the step as the engine names it, such as `[torch 2/4] RUN uv pip sync ...`.
    seconds: how long the step has been running, or took.
    item: what the byte counts are about (`exporting layers`, a layer's digest); empty for the step as a whole.
    current_bytes, total_bytes: 0 where the engine does not know.
    line: a line that the step printed, without its end.
    """

    step: str
    status: StepStatus
    seconds: float = 0.0
    item: str = ""
    current_bytes: int = 0
    total_bytes: int = 0
    line: str | None = None


OnEvent = Callable[[BuildEvent], None]
Say = Callable[[str], None]
Mask = Callable[[str], str]
"""Takes passwords out of what a build step printed, before anybody sees it or it is kept."""


def say_on_stderr(line: str) -> None:
    """Print a line for the user, beside the results on stdout."""
    sys.stderr.write(line + "\n")
