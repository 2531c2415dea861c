"""Finds and clears what a private engine that crashed leaves on the machine: processes, and mounts in its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

# The kernel cuts a process's name after 15 bytes.
PROGRAMS = frozenset({"dockerd", "containerd", "containerd-shim", "runc"})
END_TIMEOUT_SECONDS = 10.0


def daemon(home: Path) -> int | None:
    """Return the process id of the daemon whose folder is `home`, None when it does not run."""
    configuration = str(home / "daemon.json")
    for pid in _pids():
        if configuration in _command(pid) and _alive(pid):
            return pid
    return None


def clear(home: Path) -> None:
    """Kill what still runs of a dead daemon's containers and helpers, and unmount what is mounted in its folder."""
    mine = [pid for pid in _pids() if _is_helper(pid, home) or _is_inside(pid, home)]
    for pid in mine:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in mine:
        wait_for_end(pid, END_TIMEOUT_SECONDS)
    for mounted in reversed(_mounts(home)):
        subprocess.run(["umount", "--lazy", mounted], check=False, capture_output=True)


def wait_for_end(pid: int, seconds: float) -> bool:
    """Wait for a process to end, and tell whether it did."""
    deadline = time.monotonic() + seconds
    while _alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _pids() -> list[int]:
    own = os.getpid()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != own]


def _alive(pid: int) -> bool:
    """Tell whether any thread of a process still runs.

    The process's own state is its first thread's: of a killed engine that one may end before the thread that holds the
    sockets, which then still take a connection that nobody answers.
    """
    try:
        return any(_state(thread) not in ("", "Z", "X") for thread in Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it is gone
        return False


def _state(thread: Path) -> str:
    """Return a thread's state letter (proc(5), field 3 of `stat`), nothing when it is gone."""
    return _read(thread / "stat").rpartition(")")[2].strip()[:1]


def _is_helper(pid: int, home: Path) -> bool:
    """Tell whether a process is one of the engine's own programs, at work in `home`."""
    name = _read(Path(f"/proc/{pid}/comm")).strip()
    return name in PROGRAMS and any(word.startswith(f"{home}/") for word in _command(pid))


def _is_inside(pid: int, home: Path) -> bool:
    """Tell whether a process runs in a container whose root file system lies in `home`."""
    for line in _read(Path(f"/proc/{pid}/mountinfo")).splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4] == "/":
            return f"{home}/data/" in line
    return False


def _mounts(home: Path) -> list[str]:
    lines = _read(Path("/proc/self/mountinfo")).splitlines()
    return [fields[4] for fields in (line.split(" ") for line in lines) if fields[4].startswith(f"{home}/")]


def _command(pid: int) -> list[str]:
    return _read(Path(f"/proc/{pid}/cmdline")).split("\0")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
