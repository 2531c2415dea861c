"""Marks what a run makes in the engine, so that a later run can remove what a killed one left behind."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import requests
from docker.api import APIClient
from docker.errors import DockerException

LABEL = "io.assay.run"


def owner() -> str:
    """Return this process's mark: host name, boot, process id and the process's start time in clock ticks."""
    pid = os.getpid()
    return "/".join((socket.gethostname(), _boot(), str(pid), _started(pid)))


def is_left_behind(mark: str) -> bool:
    """Tell whether the process that set the mark is known to be gone. Another host's processes are not known."""
    parts = mark.split("/")
    if len(parts) != 4 or parts[0] != socket.gethostname():
        return False
    _, boot, pid, started = parts
    return boot != _boot() or not pid.isdigit() or _started(int(pid)) != started


def remove(api: APIClient, container: str) -> None:
    """Kill and remove a container. One that is already gone, or an engine that is, is no further trouble."""
    with suppress(requests.RequestException, DockerException):
        api.remove_container(container, force=True, v=True)


def remove_left_behind(api: APIClient) -> list[str]:
    """Remove the containers of runs that were killed on this machine, and return their ids."""
    removed = []
    with suppress(requests.RequestException, DockerException):  # nothing depends on it
        for container in api.containers(all=True, filters={"label": LABEL}):
            if is_left_behind(container["Labels"][LABEL]):
                remove(api, container["Id"])
                removed.append(container["Id"])
    return removed


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _started(pid: int) -> str:
    """Return when a process started: field 22 of /proc/PID/stat, so that a reused id is not taken for the same one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "gone"
    # The second field is the command in brackets and may hold anything, spaces and brackets too.
    return stat.rpartition(")")[2].split()[19]
