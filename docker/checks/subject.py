"""Try a statement in an interpreter of its own, for checks whose question is whether it works at all.

A library that takes the interpreter down when it is imported has answered the question: that is `failed`, with the
signal named and faulthandler's stack as evidence. Only an end that says nothing about the library is `error`: no
time left, no memory left, killed from outside, a machine or a container that refused what every user's would give.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from . import processes
from .framework import Answer, failed

MARK = "assay-subject:"

# What the kernel answers (strerror(3)), and Python and C++ for it, where the machine has no more memory, threads, files
# or disk, where its disk is in trouble, and where the container of the checks alone is stricter than a user's: its root
# is read-only. Too little room for a library's thread-local storage is the doing of what else was loaded.
OF_THE_MACHINE = re.compile(
    r"cannot allocate memory(?! in static TLS)|can't allocate memory|\bMemoryError\b|std::bad_alloc"
    r"|can't start new thread|Resource temporarily unavailable|Too many open files"
    r"|No space left on device|Disk quota exceeded|Input/output error|Stale file handle|Read-only file system",
    re.IGNORECASE,
)


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
        last = last_line(printed)
        # The last line alone: a library that warns of trouble, goes on and fails for a reason of its own has failed.
        if OF_THE_MACHINE.search(last):
            return Answer("error", required, f"{last}; {what_to_do(last)}", printed)
        return failed(required, last or ended.how, printed or ended.how)
    for line in ended.output.splitlines():
        if line.startswith(MARK):
            facts: dict[str, Any] = json.loads(line[len(MARK) :])
            return facts
    return Answer("error", required, "the interpreter ended cleanly but reported nothing", printed)


def what_to_do(refusal: str) -> str:
    """Return what helps against a refusal of the machine or of the checks' container."""
    if "read-only file system" in refusal.lower():
        return "while it is checked an image can write to /tmp alone, its HOME there: have it write below its HOME"
    return "that is this machine's trouble, no proof against the image: give it room, and run it again"


def last_line(text: str) -> str:
    """Return the last line that says something: of a traceback, the exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
