"""Reads what a container prints, line by line, in a thread of its own."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from contextlib import suppress

import requests
from docker.api import APIClient
from docker.errors import DockerException
from docker.types.daemon import CancellableStream

# A line longer than this is handed on in pieces, so that output without line ends cannot fill the memory.
LONGEST_LINE_BYTES = 1 << 20
QUEUED_LINES = 1000
LINE_END = re.compile(rb"\r?\n")
STOP_TIMEOUT_SECONDS = 5.0
# As the engine numbers the streams in its frames.
STDOUT, STDERR = 1, 2


class Output:
    """The output of one container. A slow reader slows the container down rather than filling the memory."""

    def __init__(self, api: APIClient, container: str) -> None:
        """Attach to a container that was created and not started yet, so that no line is missed."""
        self._response = api.post(
            f"{api.base_url}/v{api.api_version}/containers/{container}/attach",
            params={"stream": "1", "stdout": "1", "stderr": "1"},
            stream=True,
            timeout=None,
        )
        self.stream: CancellableStream[tuple[int, bytes]] = CancellableStream(_frames(self._response), self._response)
        self._lines: queue.Queue[tuple[int, str]] = queue.Queue(maxsize=QUEUED_LINES)
        self._ended = threading.Event()
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._read, name="assay-output", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no further, and close the connection; what was not taken yet is dropped."""
        self._unwanted.set()
        with suppress(OSError, ValueError, AttributeError, DockerException):  # most often it is over already
            self.stream.close()
        self._thread.join(STOP_TIMEOUT_SECONDS)
        with suppress(OSError, requests.RequestException):
            self._response.close()

    @property
    def over(self) -> bool:
        """True when the container has closed its output and every line was taken."""
        return self._ended.is_set() and self._lines.empty()

    def take(self, timeout: float) -> tuple[int, str] | None:
        """Return the next (STDOUT or STDERR, line), None when none came within `timeout` seconds."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    def _read(self) -> None:
        rest = {STDOUT: b"", STDERR: b""}
        try:
            for source, data in self.stream:
                *lines, rest[source] = LINE_END.split(rest[source] + data)
                if len(rest[source]) > LONGEST_LINE_BYTES:
                    lines, rest[source] = [*lines, rest[source]], b""
                for line in lines:
                    self._put(source, line)
                if self._unwanted.is_set():
                    return
        except (OSError, ValueError, AttributeError, requests.RequestException):
            pass  # closed under the reader, or the engine died: the container's state tells which
        finally:
            for source, data in rest.items():
                if data:
                    self._put(source, data)
            self._ended.set()

    def _put(self, source: int, raw: bytes) -> None:
        item = (source, raw.decode("utf-8", "replace"))
        while not self._unwanted.is_set():
            try:
                return self._lines.put(item, timeout=0.5)
            except queue.Full:
                continue
        return None


def _frames(response: requests.Response) -> Iterator[tuple[int, bytes]]:
    """Yield (STDOUT or STDERR, bytes): each frame has its stream in byte 0 and its length in bytes 4 to 7."""
    while len(header := response.raw.read(8)) == 8:
        yield header[0], response.raw.read(int.from_bytes(header[4:8], "big"))
