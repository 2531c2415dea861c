"""Try a statement in an interpreter of its own, for checks whose question is whether it works at all.

A library that takes the interpreter down when it is imported has answered the question: that is `failed`, with the
signal named and faulthandler's stack as evidence. Only an end that says nothing about the library is `error`: no
time left, no memory left, killed from outside.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from . import processes
from .framework import Answer, failed

MARK = "assay-subject:"


def attempt(required: str, code: str, timeout: float) -> dict[str, Any] | Answer:
    """Run `code`, which ends by calling `report({...})`, as a user's script would: same interpreter and environment.

    Returns what it reported, or the answer of the check when it did not get that far.
    """
    program = f"def report(facts):\n import json\n print('\\n{MARK}' + json.dumps(facts))\n{code}"
    ended = processes.run([sys.executable, "-X", "faulthandler", "-c", program], timeout=timeout)
    printed = processes.clip(ended.output.strip())
    if ended.timed_out or ended.out_of_memory or ended.signal in processes.FROM_OUTSIDE:
        return Answer("error", required, ended.how, printed or ended.how)
    if ended.signal:
        return failed(required, f"the interpreter crashed: {ended.how}", f"{ended.how}\n{printed}", signal=ended.signal)
    if ended.exit_code != 0:
        return failed(required, last_line(printed) or ended.how, printed or ended.how)
    for line in ended.output.splitlines():
        if line.startswith(MARK):
            facts: dict[str, Any] = json.loads(line[len(MARK) :])
            return facts
    return Answer("error", required, "the interpreter ended cleanly but reported nothing", printed)


def last_line(text: str) -> str:
    """Return the last line that says something: of a traceback, the exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
