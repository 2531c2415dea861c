"""Ask the machine's own dynamic loader what it would do, without running anything.

glibc's loader, told to trace (`LD_TRACE_LOADED_OBJECTS`), maps a program and its libraries by its own rules (RPATH,
RUNPATH, LD_LIBRARY_PATH, ld.so.cache, symbol versions), says where each library came from, binds every symbol
(`LD_BIND_NOW`, `LD_WARN`), says which are missing, and ends before any code of theirs runs. That is what `ldd -r`
does; here the program is the Python interpreter with the library preloaded, so that symbols of Python itself are
there as well.
"""

from __future__ import annotations

import os
import re
import subprocess  # the interpreter under the loader's trace
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import elf, processes

FOUND = re.compile(r"^\s*(\S+) => (\S+) \(0x[0-9a-f]+\)$")
MISSING = re.compile(r"^\s*(\S+) => not found$")
UNDEFINED = re.compile(r"^(undefined symbol: \S+?(?:, version \S+)?)\s+\((.+)\)$")
VERSION = re.compile(r"^(.+): (version `[^']+' not found \(required by .+\)|no version information.*)$")
# What glibc's loader says when the kernel gives it no memory (elf/dl-load.c). It does the same for a file whose headers
# ask for too much, which its hash tells. Room for thread-local storage is the process's own.
NO_MEMORY = re.compile(
    r"failed to map segment from shared object|cannot create shared object descriptor"
    r"|cannot allocate (?!memory in static TLS)"
)
REFUSED = re.compile(r"ERROR: ld\.so: object '(.+)' from LD_PRELOAD cannot be preloaded \((.+)\)")


@dataclass(frozen=True)
class Trace:
    """What the loader said. found: library to the file it takes. missing: libraries that it finds nowhere.

    undefined: (file, `undefined symbol: X, version V`). other: lines about versions and files that cannot be loaded.
    """

    found: dict[str, str]
    missing: tuple[str, ...]
    undefined: tuple[tuple[str, str], ...]
    other: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Say whether nothing is missing."""
        return not (self.missing or self.undefined or self.other)


class NoTraceError(RuntimeError):
    """The loader cannot be asked. The message says why."""


def trace(libraries: Sequence[str], *, program: str = sys.executable, timeout: float = 60) -> Trace:
    """Trace a program with some libraries loaded first, in this order, into one global scope.

    Raises NoTraceError when the program has no loader of glibc's kind, or the loader gives no answer.
    """
    if not elf.read(Path(program).resolve()).interpreter:
        raise NoTraceError(f"{program} is statically linked: it has no dynamic loader to ask")
    environment = {
        **os.environ,
        "LD_TRACE_LOADED_OBJECTS": "1",
        "LD_WARN": "yes",
        "LD_BIND_NOW": "yes",
        "LD_PRELOAD": " ".join(filter(None, [*libraries, os.environ.get("LD_PRELOAD", "")])),
    }
    try:
        done = subprocess.run(
            [program],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoTraceError(f"tracing {program} with {' '.join(libraries)}: {error}") from error
    what = f"{program} with {' '.join(libraries)}" if libraries else program
    answer = parse(done.stdout + done.stderr)
    # Libraries are listed first and symbols bound after that: what a loader printed that was killed is half the story.
    if done.returncode < 0:
        name = processes.signal_name(-done.returncode)
        # SIGBUS: a page that could not be read, by a disk in trouble or from a file cut short, which its hash tells.
        if name in (*processes.FROM_OUTSIDE, "SIGBUS"):
            raise NoTraceError(f"the loader was killed by {name} while it traced {what}")
        crash = f"{(libraries or [program])[-1]}: the dynamic loader crashes on it ({name})"
        return replace(answer, other=(*answer.other, crash))
    if short := next((line for line in answer.other if NO_MEMORY.search(line)), None):
        raise NoTraceError(f"the machine gave the loader no memory: {short}")
    if answer.is_complete and (done.returncode or not answer.found):
        raise NoTraceError(f"the loader said nothing wrong about {what}, and ended with exit code {done.returncode}")
    return answer


def parse(output: str) -> Trace:
    """Read the lines that the loader printed."""
    found: dict[str, str] = {}
    missing: list[str] = []
    undefined: list[tuple[str, str]] = []
    other: list[str] = []
    for line in output.splitlines():
        if match := FOUND.match(line):
            found[match[1]] = os.path.normpath(match[2])
        elif match := MISSING.match(line):
            missing.append(match[1])
        elif match := UNDEFINED.match(line):
            undefined.append((os.path.normpath(match[2]), match[1]))
        elif match := REFUSED.search(line):
            other.append(f"{match[1]}: {match[2]}")
        elif VERSION.match(line) or "error while loading shared libraries" in line:
            other.append(line.strip())
    return Trace(found, tuple(missing), tuple(undefined), tuple(other))
