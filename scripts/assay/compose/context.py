"""The folder that an image is built from: everything that its Dockerfile names, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import quote

from assay import pinned, requirements
from assay.compose import own
from assay.compose.variables import BUILDER_FRAGMENT, FILES_FRAGMENT, OWN_FRAGMENT, PATHS, context_name
from assay.errors import IngredientError
from assay.files import file_sha256, write_atomically
from assay.fragment import OWN
from assay.matrix.row import Row
from assay.network import NetworkSettings
from assay.releases import Releases
from assay.wheels import Wheel

# Folders of the context. The row's folder holds its log, findings and certificate too: `.dockerignore` keeps those out.
FOLDERS = ("files", "flash-attn", "locks", "network", OWN, "runtime", "toolkit", "wheels")

# Left out of the digest: it says how this machine reaches the network, and no byte of it enters an image. It may hold
# passwords, so it leaves the machine no other way either: `assay report --merge` and the workflows pass it over.
MACHINE = "network"

REQUIREMENTS = "requirements.txt"
"""The row's own Python packages, among the locks."""

_NOT_COPIED = ("__pycache__", "*.pyc", ".*")


def write_context(
    row: Row,
    folder: Path,
    *,
    docker: Path,
    releases: Releases,
    network: NetworkSettings,
    wheel: Wheel | None,
    fragments: Iterable[str],
    files_from: Path,
    pins: Sequence[requirements.Pin],
) -> None:
    """Write the build context of a row, in place of what an earlier run left.

    docker: the folder of fragments, locks and scripts. files_from: where the row's own files are looked for. pins: the
    Python packages of its own.
    Raises IngredientError when a lock, the wheel or a file of the row's own is missing.
    """
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    ignore = "*\n" + "".join(f"!{name}\n" for name in ("Dockerfile", *FOLDERS))
    write_atomically(folder / ".dockerignore", ignore)
    for target, source in locks(row, releases).items():
        lock = docker / "locks" / source
        if not lock.is_file():
            raise IngredientError(f"row {row.id}: {pinned.missing(source)}")
        _copy(lock, folder / "locks" / target)
    if pins:
        write_atomically(folder / "locks" / REQUIREMENTS, requirements.text(pins))
    if row.toolkit == "wheels":
        _copy(docker / "toolkit", folder / "toolkit")
    if has_runtime_files(row, docker):
        _copy(docker / "runtime", folder / "runtime")
    if BUILDER_FRAGMENT in fragments:
        _copy(docker / "flash-attn", folder / "flash-attn")
    if wheel:
        _copy(wheel.path, folder / "wheels" / wheel.path.name)
        pin = f"flash-attn @ file://{PATHS['wheels']}/{quote(wheel.path.name)} --hash=sha256:{wheel.sha256}\n"
        write_atomically(folder / "wheels" / "requirements.txt", pin)
    for number, (_, source) in enumerate(row.files if FILES_FRAGMENT in fragments else ()):
        path = files_from / source
        if not path.exists():
            raise IngredientError(f"row {row.id}: files names {source}, and {path} does not exist")
        _copy(path, folder / "files" / context_name(number, source))
    if OWN_FRAGMENT in fragments:
        own.copy_context(row, files_from, folder / OWN)
    network.write(folder / MACHINE)


def locks(row: Row, releases: Releases) -> dict[str, str]:
    """Return the locks of a row: name in the context to path under `docker/locks`."""
    wanted = {"tools.txt": "tools.txt"}
    if row.toolkit == "wheels":
        wanted["toolkit.txt"] = pinned.cuda_lock(releases.cuda(row.cuda))
    return wanted | python_locks(row, releases)


def python_locks(row: Row, releases: Releases) -> dict[str, str]:
    """Return those locks of a row that are installed into its image's Python; the others serve the build."""
    return pinned.python_locks(
        None if row.torch == "base" else releases.torch(row.torch),
        python=row.python,
        runtime=row.runtime,
        flash_attn=row.flash_attn.source,
    )


def runtime_files(row: Row, docker: Path) -> dict[str, str]:
    """Return the files that are baked into the row's image as its runtime: path -> sha256 in hex."""
    if not has_runtime_files(row, docker):
        return {}
    root = docker / "runtime"
    files = {path.relative_to(root): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): file_sha256(path)
        for name, path in files.items()
        if not any(fnmatch(part, pattern) for part in name.parts for pattern in _NOT_COPIED)
    }


def has_runtime_files(row: Row, docker: Path) -> bool:
    """Tell whether there are runtime files to bake into the row's image."""
    return row.runtime != "none" and any((docker / "runtime").glob("*.py"))


def digest(folder: Path) -> str:
    """Return the sha256 of the Dockerfile and its context: of names, permissions that count, and contents.

    The machine's network settings are left out: they change nothing in the image.
    """
    total = hashlib.sha256()
    for path in _digested(folder):
        kind = "x" if path.stat().st_mode & 0o100 else "-"
        name = path.relative_to(folder).as_posix()
        total.update(f"{name}\0{kind}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()


def _digested(folder: Path) -> Iterator[Path]:
    """Yield the files that the digest covers, in a fixed order."""
    yield folder / "Dockerfile"
    for name in FOLDERS:
        if name != MACHINE:
            yield from sorted(path for path in (folder / name).rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a tree, contents and permissions; times are the packer's business.

    Raises IngredientError when it cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_NOT_COPIED), copy_function=shutil.copy)
        else:
            shutil.copy(source, target)
    except (OSError, shutil.Error) as error:
        raise IngredientError(f"cannot copy {source} into the build context: {error}") from error
