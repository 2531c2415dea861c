"""Finds a Docker engine that answers: the one that is named, the default one, or a private one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import docker
import requests
from docker.context import ContextAPI
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from assay.engine import private
from assay.engine.events import Say
from assay.errors import EngineError

Origin = Literal["DOCKER_HOST", "context", "default", "private"]

DEFAULT_HOST = "unix:///var/run/docker.sock"
ANSWER_TIMEOUT_SECONDS = 60
SILENT_SECONDS = 2.0
# BuildKit answers `POST /build?version=2` from this API version on (Engine 18.09).
BUILDKIT_API = (1, 39)
NAMED_HINT = "Start that engine, or take the name away to let assay look for another."
PERMISSION_HINT = (
    "An engine is there and your user may not use it: `sudo usermod -aG docker $USER`, then log in again; "
    "or run assay as root."
)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """An engine that answered. origin: what led to it."""

    client: docker.DockerClient
    host: str
    origin: Origin
    version: str
    buildkit: bool


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Where an engine may be. named: the user chose it, so no other may be used in its place."""

    host: str
    origin: Origin
    named: bool = False
    tls: Any = False


def find(*, start: bool, say: Say) -> Connection:
    """Connect to the first engine that answers; start a private one when none does and `start` allows it.

    Raises EngineError with the command that helps.
    """
    refused: list[str] = []
    hint: str | None = None
    for candidate in candidates(os.environ):
        try:
            with _patience(candidate, say):
                return _connect(candidate)
        # ValueError: of an address that cannot be one, the SDK's own parser says no more than Python's (`tcp://[::1`).
        except (DockerException, requests.RequestException, OSError, ValueError) as error:
            if candidate.named:
                raise EngineError(
                    f"no Docker engine answers at {candidate.host}, which the {_named_by(candidate)} names: "
                    f"{_cause(error)}. {PERMISSION_HINT if _forbidden(error) else NAMED_HINT}"
                ) from error
            refused.append(f"{candidate.host}: {_cause(error)}")
            hint = hint or (PERMISSION_HINT if _forbidden(error) else None)
    obstacle = private.obstacle()
    if obstacle is not None or not start:
        raise EngineError(f"no Docker engine answers ({'; '.join(refused)}). {hint or obstacle or private.START_HINT}")
    if private.install(say):
        # The package starts the machine's own engine where there is a service manager: then that is the one to use.
        try:
            return _connect(Candidate(host=DEFAULT_HOST, origin="default"))
        except (DockerException, requests.RequestException, OSError):
            pass
    private.start(say)
    return _connect(Candidate(host=private.host(), origin="private"))


@contextmanager
def _patience(candidate: Candidate, say: Say) -> Iterator[None]:
    """Say what is waited for once an engine takes its time: another machine that is gone gives no sign for a minute."""
    waiting = threading.Timer(
        SILENT_SECONDS,
        lambda: say(f"waiting for the Docker engine at {candidate.host}, for {ANSWER_TIMEOUT_SECONDS} s at most"),
    )
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()


def candidates(environment: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield where an engine may be, in the order in which Docker's own command line looks, a private one last."""
    if host := environment.get("DOCKER_HOST"):
        tls = kwargs_from_env(dict(environment)).get("tls", False)
        yield Candidate(host=host, origin="DOCKER_HOST", named=True, tls=tls)
        return
    context = ContextAPI.get_context(environment.get("DOCKER_CONTEXT"))
    if context is not None and context.Name != "default":
        yield Candidate(host=context.Host or DEFAULT_HOST, origin="context", named=True, tls=context.TLSConfig or False)
        return
    yield Candidate(host=DEFAULT_HOST, origin="default")
    if private.in_sight():
        yield Candidate(host=private.host(), origin="private")


def supports_buildkit(version: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Tell whether builds go through BuildKit.

    version: the engine's answer to `/version`. Docker's own engine has BuildKit on Linux, whether it prefers it (23 and
    newer) or has to be asked; others that speak its API, such as Podman, build in their own way.
    environment: `DOCKER_BUILDKIT=0` asks for the classic builder, as with Docker's own command line.
    """
    if environment.get("DOCKER_BUILDKIT") == "0" or version.get("Os") != "linux":
        return False
    components = {component.get("Name") for component in version.get("Components") or ()}
    api_version = tuple(int(number) for number in version["ApiVersion"].split("."))
    return "Engine" in components and api_version >= BUILDKIT_API


def _connect(candidate: Candidate) -> Connection:
    if candidate.host.startswith("unix://"):
        # The plain reason (no such file, permission denied) instead of the SDK's own words around it.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(ANSWER_TIMEOUT_SECONDS)
            probe.connect(candidate.host.removeprefix("unix://"))
    client = docker.DockerClient(
        base_url=candidate.host, version="auto", tls=candidate.tls, timeout=ANSWER_TIMEOUT_SECONDS
    )
    version: dict[str, Any] = client.api.version()
    return Connection(
        client=client,
        host=candidate.host,
        origin=candidate.origin,
        version=version["Version"],
        buildkit=supports_buildkit(version, os.environ),
    )


def _named_by(candidate: Candidate) -> str:
    return "environment variable DOCKER_HOST" if candidate.origin == "DOCKER_HOST" else "current Docker context"


def _forbidden(error: BaseException) -> bool:
    return isinstance(error, PermissionError)


def _cause(error: BaseException) -> str:
    """Return the system's own reason where there is one: `Connection refused` rather than the exceptions around it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)
