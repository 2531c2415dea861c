"""A root file system of a few megabytes for tests: a shell and some tools of this machine, with their libraries."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

TOOLS = ("sh", "cat", "dd", "echo", "env", "id", "ls", "mkdir", "rm", "sleep", "tail", "touch", "true")


def root_tar() -> io.BytesIO:
    """Return the file system as a tar stream."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        libraries: set[str] = set()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            program = Path(found).resolve()
            archive.add(program, f"bin/{tool}")
            listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
            libraries.update(re.findall(r"(/\S+) \(0x", listed))
        for library in sorted(libraries):
            archive.add(Path(library).resolve(), library.lstrip("/"))
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
    stream.seek(0)
    return stream
