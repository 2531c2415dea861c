"""Reads what a container prints, line by line, in a thread of its own."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator

from docker.errors import DockerException

# A line longer than this is handed on in pieces, so that output without line ends cannot fill the memory.
LONGEST_LINE_BYTES = 1 << 20
QUEUED_LINES = 1000
LINE_END = re.compile(rb"\r?\n")
STDOUT, STDERR = 0, 1


class Output:
    """The output of one container. A slow reader slows the container down rather than filling the memory."""

    def __init__(self, stream: Iterator[tuple[bytes | None, bytes | None]]) -> None:
        self._stream = stream
        self._lines: queue.Queue[tuple[int, str]] = queue.Queue(maxsize=QUEUED_LINES)
        self._ended = threading.Event()
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._read, name="assay-output", daemon=True)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def stop(self) -> None:
        """Read no further; what was not taken yet is dropped."""
        self._unwanted.set()

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
        rest = [b"", b""]
        try:
            for pair in self._stream:
                for source, data in enumerate(pair):
                    if data:
                        *lines, rest[source] = LINE_END.split(rest[source] + data)
                        if len(rest[source]) > LONGEST_LINE_BYTES:
                            lines, rest[source] = [*lines, rest[source]], b""
                        for line in lines:
                            self._put(source, line)
                if self._unwanted.is_set():
                    return
        except (OSError, ValueError, AttributeError, DockerException):
            pass  # closed under the reader, or the engine died: the container's state tells which
        finally:
            for source, data in enumerate(rest):
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
