"""The private engine: a Docker daemon that assay starts for itself when the machine has none that answers.

Everything of it lies in `state_dir()/engine`: data, sockets, process id and log. It has no bridge network and touches
no packet filter; builds use the host's network and checks run without any. It outlives the run that started it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.engine import bridge
from assay.engine.events import Say, say_on_stderr
from assay.errors import EngineError
from assay.paths import state_dir

PACKAGE = "docker.io"
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 60.0
# Linux limits the path of a socket; the longest one is containerd's, below the daemon's own folder.
SOCKET_PATH_BYTES = 107
LONGEST_SOCKET = "exec/containerd/containerd.sock.ttrpc"
LOG_LINES_SHOWN = 5
START_HINT = "Start one with `assay engine start`, or name one with DOCKER_HOST."
INSTALL_HINT = (
    "Install one and let your user use it: `sudo apt-get install -y docker.io && sudo usermod -aG docker $USER`, "
    "then log in again; or run assay as root, and it starts a private one."
)
OTHER_SYSTEM_HINT = "Install Docker Engine and start it with `systemctl start docker`, or name one with DOCKER_HOST."


def folder() -> Path:
    """Return the folder of the private engine; it may not exist yet."""
    return state_dir() / "engine"


def socket_path() -> Path:
    """Return the private engine's socket."""
    return folder() / "docker.sock"


def host() -> str:
    """Return what DOCKER_HOST has to be for the private engine."""
    return f"unix://{socket_path()}"


def obstacle() -> str | None:
    """Say why no private engine can be started here, with the command that helps; None when one can."""
    debian = shutil.which("apt-get") is not None
    if os.geteuid() != 0:
        return INSTALL_HINT if debian else OTHER_SYSTEM_HINT
    if shutil.which("dockerd") is None and not debian:
        return OTHER_SYSTEM_HINT
    return None


def install(say: Say) -> bool:
    """Install the engine from the system's packages where it is missing; tell whether that was done."""
    if shutil.which("dockerd") is not None:
        return False
    say(f"no Docker engine here: installing the package {PACKAGE}")
    packages = [PACKAGE, "ca-certificates"]
    if _read(Path("/sys/module/apparmor/parameters/enabled")).startswith("Y"):
        packages.append("apparmor")  # without its parser the engine can start no container on such a kernel
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages],
    ):
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if answer.returncode != 0:
            said = "\n".join((answer.stdout + answer.stderr).splitlines()[-LOG_LINES_SHOWN:])
            raise EngineError(f"`{' '.join(command)}` failed, so there is no Docker engine:\n{said}")
    return True


def start(say: Say = say_on_stderr) -> None:
    """Start the private engine, or do nothing when it runs. Of two runs that start it at once, one waits for the other.

    Raises EngineError with the daemon's last words when it does not come up.
    """
    home = folder()
    longest = home / LONGEST_SOCKET
    if len(os.fsencode(longest)) > SOCKET_PATH_BYTES:
        raise EngineError(
            f"{home} is too long a path for an engine's sockets ({longest} has more than {SOCKET_PATH_BYTES} bytes): "
            "set ASSAY_STATE to a shorter one"
        )
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _lock(home, say):
        if _accepts(socket_path()):
            return
        _clear(home)
        configuration = home / "daemon.json"
        configuration.write_text(json.dumps(_configuration(home), indent=2) + "\n", encoding="utf-8")
        say(f"no Docker engine answers: starting a private one in {home}")
        _launch(home, configuration)


def stop(say: Say = say_on_stderr) -> bool:
    """Stop the private engine and its containers; tell whether it ran. Its images stay for the next start."""
    home = folder()
    if not home.is_dir():
        return False
    with _lock(home, say):
        daemon = _daemon(home)
        if daemon is None:
            _clear(home)
            return False
        os.kill(daemon, signal.SIGTERM)
        if not _gone(daemon, STOP_TIMEOUT_SECONDS):
            os.kill(daemon, signal.SIGKILL)
            _gone(daemon, STOP_TIMEOUT_SECONDS)
        _clear(home)
        return True


def _configuration(home: Path) -> dict[str, object]:
    """Return the daemon's configuration, a file of its own: /etc/docker/daemon.json is for the machine's engine."""
    return {
        "data-root": str(home / "data"),
        "exec-root": str(home / "exec"),
        "hosts": [host()],
        "pidfile": str(home / "pid"),
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "bridge": bridge.for_private_engine(),
        "features": {"buildkit": True},
        "shutdown-timeout": 10,
    }


def _launch(home: Path, configuration: Path) -> None:
    log = home / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            ["dockerd", "--config-file", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            start_new_session=True,  # Ctrl-C in the terminal, or its end, is not for the engine
        )
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not _accepts(socket_path()):
        if daemon.poll() is not None or time.monotonic() > deadline:
            state = f"ended with code {daemon.returncode}" if daemon.returncode is not None else "does not answer"
            if daemon.returncode is None:
                daemon.kill()
            said = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:])
            raise EngineError(f"the private Docker engine {state}; the end of {log}:\n{said}")
        time.sleep(0.1)


def _clear(home: Path) -> None:
    """Remove what a dead daemon left: a new one refuses to start while its old id is any living process's."""
    if _daemon(home) is None:
        (home / "pid").unlink(missing_ok=True)
        (home / "docker.sock").unlink(missing_ok=True)
        for containerd in _processes(str(home / "exec" / "containerd")):
            # A killed daemon leaves its containerd and containers behind.
            with suppress(ProcessLookupError):
                os.kill(containerd, signal.SIGKILL)
        bridge.remove()


def _daemon(home: Path) -> int | None:
    """Return the process id of the private daemon, None when it does not run."""
    return next(iter(_processes(str(home / "daemon.json"))), None)


def _processes(argument: str) -> list[int]:
    """Return the processes that have an argument with this path in their command line, this one apart."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if any(word == argument.encode() or word.startswith(argument.encode() + b"/") for word in words):
                found.append(int(entry.name))
    return found


def _gone(pid: int, seconds: float) -> bool:
    """Wait for a process to end, whether it is this one's child or not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        if not state or state[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def _accepts(path: Path) -> bool:
    """Tell whether a daemon answers at a socket: it listens before it is ready, and then answers late."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


@contextmanager
def _lock(home: Path, say: Say) -> Iterator[None]:
    with (home / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that is starting or stopping the private engine")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
