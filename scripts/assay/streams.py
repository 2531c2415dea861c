"""Standard output and error that outlive whoever reads them, and that take any text in whatever encoding they have.

A run that says its last words to a pipe that nobody reads any more (`assay matrix | head`) still has a verdict: its
exit code must be the one that it has earned, neither Python's 1, which would say that a row came out otherwise than
expected, nor a 0 that nobody proved.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


@contextlib.contextmanager
def outliving_their_readers() -> Iterator[None]:
    """Let writing to either stream fail for want of a reader, and drop what is written from then on."""
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Evidence and file names hold what this terminal's encoding may not; stderr escapes that by itself.
        sys.stdout.reconfigure(errors="replace")
    sys.stdout, sys.stderr = (_outliving(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # here, where it may fail: at the very end Python would exit with 120
        sys.stdout, sys.stderr = before


def _outliving(stream: TextIO) -> TextIO:
    """Return the stream wrapped; None, which it is where it was closed before Python began, as it is."""
    return stream and cast(TextIO, _Outliving(stream))


class _Outliving:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self) -> None:
        """Lead the stream nowhere: it would try again to write what it still holds, and break again."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
