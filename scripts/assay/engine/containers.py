"""Runs a command in a hardened container that is always removed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from docker.api import APIClient
from docker.errors import DockerException, ImageNotFound
from docker.types import LogConfig
from docker.types import Mount as DockerMount

from assay.engine import images
from assay.engine.gpu import GpuAccess
from assay.engine.output import STDERR, STDOUT, Output
from assay.engine.owner import LABEL, owner, remove
from assay.engine.stream import Watch, engine_error
from assay.errors import Cancelled, EngineError, IngredientError

GIB = 1 << 30
TAIL_LINES = 200
POLL_SECONDS = 0.1
# How long a killed container's last output is waited for, and how long its end.
DRAIN_SECONDS = 5.0
KILL_TIMEOUT_SECONDS = 60.0
LIBRARY_PATH = "LD_LIBRARY_PATH"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A file or folder of this machine that the container sees at `target`."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, kw_only=True)
class ContainerResult:
    """How a container ended.

    exit_code: the command's; 137 when it was killed (by the deadline, or by the kernel for its memory).
    stdout_tail, stderr_tail: the last lines of each.
    oom_killed: the kernel killed a process of the container because the memory limit was reached.
    """

    exit_code: int
    stdout_tail: tuple[str, ...]
    stderr_tail: tuple[str, ...]
    timed_out: bool
    oom_killed: bool
    seconds: float


def run(
    api: APIClient,
    image: str,
    command: Sequence[str],
    *,
    mounts: Sequence[Mount] = (),
    gpu: GpuAccess | None = None,
    network: str = "none",
    read_only: bool = True,
    memory_bytes: int = 8 * GIB,
    pids: int = 1024,
    tmp_bytes: int = 2 * GIB,
    timeout: float,
    on_line: Callable[[str], None] | None = None,
    environment: Mapping[str, str] | None = None,
    working_dir: str | None = None,
    user: str | None = None,
    cancel: threading.Event | None = None,
) -> ContainerResult:
    """Run `command` in a fresh container of `image`: no network, read-only root, no capabilities, bounded memory.

    command: replaces both the image's entrypoint and its command.
    memory_bytes: limit for the processes and /tmp together; there is no swap beyond it.
    timeout: seconds until the container is killed.
    on_line: gets every line of stdout and stderr as it comes, called in the caller's thread.
    Raises IngredientError when the image is not there, EngineError for the engine's trouble, Cancelled when `cancel`
    is set. The container is removed in every case.
    """
    options = _options(
        api,
        image,
        mounts=mounts,
        gpu=gpu,
        network=network,
        read_only=read_only,
        memory_bytes=memory_bytes,
        pids=pids,
        tmp_bytes=tmp_bytes,
        environment=environment or {},
    )
    with _container(api, image, command, options, working_dir=working_dir, user=user) as container:
        try:
            return _follow(api, container, timeout=timeout, on_line=on_line, cancel=cancel)
        except (requests.RequestException, DockerException) as error:
            raise engine_error(error, f"running {command[0]} in {image}") from error


def _options(
    api: APIClient,
    image: str,
    *,
    mounts: Sequence[Mount],
    gpu: GpuAccess | None,
    network: str,
    read_only: bool,
    memory_bytes: int,
    pids: int,
    tmp_bytes: int,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """Return the container's environment and host configuration, as the engine's API wants them."""
    variables = {"HOME": "/tmp", **environment}  # noqa: S108 - the container's own /tmp, its only writable folder
    devices: list[str] = []
    requests_: list[Any] = []
    if gpu is not None:
        mounts = [*mounts, *(Mount(source=Path(source), target=target) for source, target in gpu.mounts)]
        devices = [f"{device}:{device}:rw" for device in gpu.devices]
        requests_ = [dict(request) for request in gpu.device_requests]
        variables.update(gpu.environment)
        if gpu.library_path:
            # Behind the image's own folders: the driver's files must not displace a library of the image.
            before = variables.get(LIBRARY_PATH) or images.get(api, image).environment.get(LIBRARY_PATH)
            variables[LIBRARY_PATH] = ":".join(filter(None, [before, gpu.library_path]))
    host = api.create_host_config(
        network_mode=network,
        read_only=read_only,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=memory_bytes,
        memswap_limit=memory_bytes,
        pids_limit=pids,
        # Compilers of kernels (Triton, torch.compile) load what they wrote to /tmp, so it allows execution.
        tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={tmp_bytes}"},  # noqa: S108
        shm_size=1 * GIB,
        mounts=[
            DockerMount(mount.target, str(mount.source.resolve()), type="bind", read_only=mount.read_only)
            for mount in mounts
        ],
        devices=devices or None,
        device_requests=requests_ or None,
        # The output is read as it comes; a copy in the engine's log could fill its disk.
        log_config=LogConfig(type="none"),
    )
    return {"environment": variables, "host_config": host}


@contextmanager
def _container(
    api: APIClient,
    image: str,
    command: Sequence[str],
    options: Mapping[str, Any],
    *,
    working_dir: str | None,
    user: str | None,
) -> Iterator[str]:
    """Create a container, yield its id, and remove it whatever happens."""
    try:
        container = api.create_container(
            image,
            entrypoint=[command[0]],
            command=list(command[1:]),
            working_dir=working_dir,
            user=user,
            labels={LABEL: owner()},
            # The SDK would hand the proxies of this user's Docker settings, passwords and all, to the image under test.
            use_config_proxy=False,
            # An image's own would run beside the command, with its environment and its share of memory and GPU.
            healthcheck={"test": ["NONE"]},
            **options,
        )["Id"]
    except ImageNotFound as error:
        raise IngredientError(f"image {image} is not in the engine") from error
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"creating a container of {image}") from error
    try:
        yield container
    finally:
        remove(api, container)


class _Deadline:
    """When a container has to be over, and what is done about it."""

    def __init__(self, api: APIClient, container: str, timeout: float, cancel: threading.Event | None) -> None:
        self._api = api
        self._container = container
        self._cancel = cancel
        self._end = time.monotonic() + timeout
        self.passed = False
        self.overdue = False

    def check(self) -> None:
        """Kill the container once its time is over; `overdue` says to wait no longer for its last output.

        Raises Cancelled when the run is to stop, EngineError when the container cannot be killed.
        """
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled("cancelled while a container was running")
        late = time.monotonic() - self._end
        if late > 0 and not self.passed:
            self.passed = True
            # The engine answers when the last output is read, which is the caller's to do meanwhile.
            threading.Thread(target=self._kill, name="assay-kill", daemon=True).start()
        self.overdue = late > DRAIN_SECONDS
        if late > KILL_TIMEOUT_SECONDS:
            raise EngineError(
                f"the Docker engine could not kill container {self._container[:12]} after its time was over"
            )

    def _kill(self) -> None:
        with suppress(requests.RequestException, DockerException):  # it may end by itself in this very moment
            self._api.kill(self._container)


def _follow(
    api: APIClient,
    container: str,
    *,
    timeout: float,
    on_line: Callable[[str], None] | None,
    cancel: threading.Event | None,
) -> ContainerResult:
    """Start a container and follow it to its end."""
    tails: dict[int, deque[str]] = {STDOUT: deque(maxlen=TAIL_LINES), STDERR: deque(maxlen=TAIL_LINES)}
    output = Output(api, container)
    watch = Watch(api, cancel=None)
    started = time.monotonic()
    try:
        api.start(container)
        watch.start(output.stream)
        deadline = _Deadline(api, container, timeout, cancel)
        while not output.over and not deadline.overdue:
            taken = output.take(POLL_SECONDS)
            if taken is not None:
                source, line = taken
                tails[source].append(line)
                if on_line is not None:
                    on_line(line)
            deadline.check()
        if watch.reason is not None:
            raise watch.reason
        output.stop()  # lets go of an engine that still wants to hand over output
        state = api.inspect_container(container)["State"]
        while state["Running"]:  # the command closed its output and goes on
            deadline.check()
            time.sleep(POLL_SECONDS)
            state = api.inspect_container(container)["State"]
    finally:
        watch.stop()
        output.stop()
    return ContainerResult(
        exit_code=int(state["ExitCode"]),
        stdout_tail=tuple(tails[STDOUT]),
        stderr_tail=tuple(tails[STDERR]),
        timed_out=deadline.passed,
        oom_killed=bool(state["OOMKilled"]),
        seconds=time.monotonic() - started,
    )
