"""Packs a build context so that the same files always give the same bytes."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from assay.errors import IngredientError

# 2020-01-01T00:00:00Z. Copied files carry it into the image, and wheels (ZIP archives) hold no date before 1980.
FIXED_TIME = 1577836800


def pack(folder: Path, out: IO[bytes]) -> None:
    """Write `folder` as a tar archive to `out`: sorted, owned by root, fixed times, modes reduced to 644 and 755.

    GNU format, because BuildKit takes an archive that starts with a PAX header for a Dockerfile.
    Raises IngredientError for something that is neither file, folder nor symbolic link.
    """
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in _walk(folder):
            # Hard links would depend on what else the folder holds: each file is packed for itself.
            archive.inodes.clear()  # type: ignore[attr-defined]
            member = archive.gettarinfo(path, arcname=path.relative_to(folder).as_posix())
            if not (member.isfile() or member.isdir() or member.issym()):
                raise IngredientError(f"{path}: a build context holds only files, folders and symbolic links")
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = FIXED_TIME
            member.mode = _mode(member)
            if member.isfile():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir(), key=lambda entry: entry.name):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _mode(member: tarfile.TarInfo) -> int:
    if member.issym():
        return 0o777
    return 0o755 if member.isdir() or member.mode & stat.S_IXUSR else 0o644
