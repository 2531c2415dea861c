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
    """Let writing to either stream fail for want of a reader, and drop what is written from then on.

    Raises OSError, once, where standard output cannot be written to for another reason, such as a disk that is full.
    Of standard error, where that would be told, nothing is raised.
    """
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Evidence and file names hold what this terminal's encoding may not; stderr escapes that by itself.
        sys.stdout.reconfigure(errors="replace")
    out, err = _outliving(sys.stdout, BrokenPipeError), _outliving(sys.stderr, OSError)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in (err, out):
            if stream is not None:
                stream.flush()  # here, where it may fail: at the very end Python would exit with 120


def _outliving(stream: TextIO, forgiven: type[OSError]) -> TextIO:
    """Return the stream wrapped; None, which it is where it was closed before Python began, as it is."""
    return stream and cast(TextIO, _Outliving(stream, forgiven))


class _Outliving:
    def __init__(self, stream: TextIO, forgiven: type[OSError]) -> None:
        self._stream, self._forgiven = stream, forgiven

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._giving_up():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._giving_up():
            self._stream.flush()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Lead a stream that fails nowhere: it would try again to write what it still holds, and fail again."""
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if not isinstance(error, self._forgiven):
                raise OSError(error.errno, error.strerror, "standard output") from error
