"""Files that are either whole or not there, and the lock that keeps two runs out of one folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.errors import Busy, UsageError

LOCK_FOLDERS = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - what every process of the machine shares


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a run killed half-way, sees the old content or the new one, nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for one run.

    The kernel drops the lock when the process ends, however it ends, so a stale one cannot exist.
    Raises Busy, naming the process that holds it, when another run is at work there; UsageError when it cannot be
    written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+", encoding="ascii")
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written to: {error.strerror}; name a folder that can be with --out DIR"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Busy(
                f"another run (process {holder}) is writing to {folder}; wait for it to end, or give this one "
                "a folder of its own with --out DIR"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def lock_file(name: str) -> Path:
    """Return a file of this machine that stands for something there is only one of, for processes to lock.

    It lies where every process of the machine looks for it, whatever its TMPDIR and whoever may write to the first of
    the folders, and is created where it is missing, readable by all whatever its umask: reading is enough for a lock.
    Raises OSError where that folder cannot be written to, or where the name is taken by something else than a file.
    """
    places = [folder / f"assay-{name}.lock" for folder in LOCK_FOLDERS]
    for path in places:
        if path.is_file() and not path.is_symlink():
            return path
    path = next((place for place in places if os.access(place.parent, os.W_OK)), places[-1])
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        # A link would lead a container that it is mounted into to a file of somebody else's choice.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, "is no ordinary file: remove it", str(path)) from None
        return path
    os.fchmod(descriptor, 0o644)
    os.close(descriptor)
    return path


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as lower-case hex, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
