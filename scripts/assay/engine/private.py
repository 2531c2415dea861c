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
from contextlib import contextmanager
from pathlib import Path

from assay.engine import bridge, leftovers
from assay.engine.events import Say, say_on_stderr
from assay.errors import EngineError
from assay.paths import state_dir
from assay.redact import without_passwords

PACKAGE = "docker.io"
START_TIMEOUT_SECONDS = 120.0
# While a process is replaced by another program, its command line reads empty: a daemon that is being loaded from a
# busy disk is nowhere to be seen for a moment, and has not ended.
APPEARS_WITHIN_SECONDS = 5.0
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


def in_sight() -> bool:
    """Tell whether a private engine's socket is there, and this user may see it: root's state folder is closed."""
    try:
        return socket_path().exists()
    except PermissionError:
        return False


def host() -> str:
    """Return what DOCKER_HOST has to be for the private engine."""
    return f"unix://{socket_path()}"


def programs_path() -> str:
    """Return the PATH with the folders for root's programs, which not every shell has on it."""
    return os.pathsep.join(filter(None, [os.environ.get("PATH"), "/usr/sbin", "/sbin"]))


def obstacle() -> str | None:
    """Say why no private engine can be started here, with the command that helps; None when one can."""
    debian = shutil.which("apt-get") is not None
    if os.geteuid() != 0:
        return INSTALL_HINT if debian else OTHER_SYSTEM_HINT
    if shutil.which("dockerd", path=programs_path()) is None and not debian:
        return OTHER_SYSTEM_HINT
    return None


def install(say: Say) -> bool:
    """Install the engine from the system's packages where it is missing; tell whether that was done."""
    if shutil.which("dockerd", path=programs_path()) is not None:
        return False
    say(f"no Docker engine here: installing the package {PACKAGE}")
    packages = [PACKAGE, "ca-certificates"]
    if _apparmor():
        packages.append("apparmor")  # without its parser the engine can start no container on such a kernel
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages],
    ):
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if answer.returncode != 0:
            said = without_passwords("\n".join((answer.stdout + answer.stderr).splitlines()[-LOG_LINES_SHOWN:]))
            raise EngineError(f"`{' '.join(command)}` failed, so there is no Docker engine:\n{said}")
    return True


def _apparmor() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text(encoding="ascii").startswith("Y")
    except OSError:
        return False


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
        if (silent := leftovers.daemon(home)) is not None:
            raise EngineError(
                f"the private Docker engine (process {silent}) runs and does not answer; its log is {home / 'log'}. "
                "Stop it with `assay engine stop` and try again."
            )
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
        daemon = leftovers.daemon(home)
        if daemon is not None:
            os.kill(daemon, signal.SIGTERM)  # it stops its containers first
            if not leftovers.wait_for_end(daemon, STOP_TIMEOUT_SECONDS):
                os.kill(daemon, signal.SIGKILL)
                leftovers.wait_for_end(daemon, STOP_TIMEOUT_SECONDS)
        _clear(home)
        return daemon is not None


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
        # In a session of its own and no child of this process: neither Ctrl-C nor the run's end is for the engine.
        command = ["setsid", "--fork", "dockerd", "--config-file", str(configuration)]
        environment = {**os.environ, "PATH": programs_path()}
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            check=True,
        )
    launched = time.monotonic()
    while not _accepts(socket_path()):
        daemon = leftovers.daemon(home)
        waited = time.monotonic() - launched
        if waited > (APPEARS_WITHIN_SECONDS if daemon is None else START_TIMEOUT_SECONDS):
            if daemon is not None:
                os.kill(daemon, signal.SIGKILL)
            state = "ended at once" if daemon is None else f"did not answer within {START_TIMEOUT_SECONDS:.0f} s"
            said = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:])
            raise EngineError(f"the private Docker engine {state}; the end of {log}:\n{said}")
        time.sleep(0.1)


def _clear(home: Path) -> None:
    """Remove what a dead daemon left: a new one refuses to start while its old id is any living process's."""
    leftovers.clear(home)
    shutil.rmtree(home / "exec", ignore_errors=True)  # a new containerd does not start over a killed one's state
    (home / "pid").unlink(missing_ok=True)
    socket_path().unlink(missing_ok=True)
    bridge.remove()


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
