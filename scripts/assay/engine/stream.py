"""Sends a build to the engine over the SDK's own connection and reads its answer as it comes.

The answer has no read timeout, since a compiler may be silent for many minutes. Instead a watcher looks at the cancel
event and asks the engine for a sign of life; either can close the connection, which is also what makes the engine
stop the build.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

import requests
from docker.api import APIClient
from docker.errors import APIError, DockerException
from docker.types.daemon import CancellableStream

from assay.errors import Cancelled, EngineError

CHUNK_BYTES = 1 << 20
PING_EVERY_SECONDS = 5.0
PING_TIMEOUT_SECONDS = 10.0
# An engine that is only busy answers within seconds even on a loaded machine with two cores.
PINGS_UNTIL_LOST = 3


class Watch:
    """Closes a stream when the run is cancelled or the engine stops answering; `reason` then says which."""

    def __init__(self, api: APIClient, cancel: threading.Event | None) -> None:
        self._api = api
        self._cancel = cancel or threading.Event()
        self._over = threading.Event()
        self._stream: CancellableStream[Any] | None = None
        self.reason: Exception | None = None
        self._threads = [
            threading.Thread(target=self._watch_cancel, name="assay-cancel", daemon=True),
            threading.Thread(target=self._watch_engine, name="assay-ping", daemon=True),
        ]

    def start(self, stream: CancellableStream[Any]) -> None:
        """Watch over `stream` from now on."""
        self._stream = stream
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let go of the stream."""
        self._over.set()

    def _watch_cancel(self) -> None:
        while not self._over.is_set():
            if self._cancel.wait(0.2):
                self._close(Cancelled("cancelled while the image was being built"))
                return

    def _watch_engine(self) -> None:
        missed = 0
        while not self._over.wait(PING_EVERY_SECONDS):
            missed = 0 if answers(self._api) else missed + 1
            if missed == PINGS_UNTIL_LOST:
                self._close(EngineError(f"the Docker engine no longer answers after {missed} tries"))
                return

    def _close(self, reason: Exception) -> None:
        if self._over.is_set():
            return
        self.reason = reason
        # The stream may end by itself in this very moment; SSH connections cannot be shut down from here.
        with suppress(OSError, DockerException, AttributeError, ValueError):
            if self._stream is not None:
                self._stream.close()


def answers(api: APIClient) -> bool:
    """Tell whether the engine answers a ping in time."""
    try:
        return bool(api.get(f"{api.base_url}/_ping", timeout=PING_TIMEOUT_SECONDS).ok)
    except (requests.RequestException, DockerException):
        return False


@contextmanager
def build_stream(
    api: APIClient, params: Mapping[str, str], context: IO[bytes], cancel: threading.Event | None
) -> Iterator[Iterator[dict[str, Any]]]:
    """POST a build and yield its messages. Leaving the block closes the connection, which ends a build that still runs.

    Raises EngineError when the engine refuses, goes away or stops answering, and Cancelled when `cancel` is set.
    """
    watch = Watch(api, cancel)
    try:
        response = api.post(
            f"{api.base_url}/v{api.api_version}/build",
            params=dict(params),
            data=_upload(context, cancel),
            headers={"Content-Type": "application/x-tar"},
            stream=True,
            timeout=None,
        )
    except (requests.RequestException, DockerException) as error:
        raise EngineError(f"the Docker engine went away while it was being sent the build context: {error}") from error
    try:
        if response.status_code == requests.codes.bad_request:
            # The classic builder answers a Dockerfile that it cannot read in this way, BuildKit in the stream.
            yield iter([{"error": response.json()["message"]}])
            return
        if not response.ok:
            raise EngineError(f"the Docker engine refused the build: {response.status_code} {response.text.strip()}")
        stream = CancellableStream(response.iter_content(chunk_size=None), response)
        watch.start(stream)
        yield _messages(stream, watch)
    finally:
        watch.stop()
        with suppress(OSError, requests.RequestException, DockerException):
            response.close()


def _upload(context: IO[bytes], cancel: threading.Event | None) -> Iterator[bytes]:
    while chunk := context.read(CHUNK_BYTES):
        if cancel is not None and cancel.is_set():
            raise Cancelled("cancelled while the build context was being sent")
        yield chunk


def _messages(stream: CancellableStream[bytes], watch: Watch) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of the answer, one a line, up to its end."""
    rest = b""
    try:
        for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)
    except (requests.RequestException, DockerException, ValueError, AttributeError) as error:
        # A shut-down socket surfaces as any of these, depending on where the reader stood.
        if watch.reason is None:
            raise EngineError(f"the connection to the Docker engine broke off: {error}") from error
    if watch.reason is not None:
        raise watch.reason
    if rest.strip():
        raise EngineError("the Docker engine broke off in the middle of a message")


def engine_error(error: APIError | requests.RequestException | DockerException, doing: str) -> EngineError:
    """Put an SDK error into one sentence: what was being done, and what the engine said."""
    if isinstance(error, requests.ConnectionError):
        return EngineError(
            f"the Docker engine no longer answers, while {doing}; `assay engine status` tells whether it is back"
        )
    said = error.explanation if isinstance(error, APIError) and error.explanation else str(error)
    return EngineError(f"the Docker engine failed while {doing}: {said}")
