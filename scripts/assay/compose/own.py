"""What a row adds of its own, read for its Dockerfile and its build context, and held against what its engine knows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from assay import fragment
from assay.errors import IngredientError, MatrixError
from assay.matrix.row import Row
from assay.pinned import locked
from assay.requirements import Pin, read


def requirements(row: Row, locks: Mapping[str, str], folder: Path) -> tuple[Pin, ...]:
    """Return the row's own Python packages, without those that its locks install.

    locks: those of the row's Python, under `docker/locks`. folder: what the row's paths are relative to.
    Raises IngredientError when a lock is missing, or the file is not the one that the row was made with.
    """
    if row.requirements is None:
        return ()
    path = folder / row.requirements.path
    try:
        file = read(path)
    except OSError as error:
        raise IngredientError(f"row {row.id}: {path} cannot be read: {error.strerror}; put it back") from error
    if file.sha256 != row.requirements.sha256:
        raise IngredientError(f"row {row.id}: {path} changed since the matrix was read; run again")
    held = locked(locks.values())
    return tuple(pin for pin in file.pins if pin.name not in held)


def instructions(row: Row, folder: Path, *, mounts: bool, heredocs: bool) -> str:
    """Return the row's own Dockerfile instructions; nothing where it has none.

    mounts: the engine has BuildKit. heredocs: it is Engine 23 or newer, with BuildKit.
    Raises MatrixError for what no engine could build, IngredientError for what this one cannot.
    """
    if row.dockerfile is None:
        return ""
    path = folder / row.dockerfile
    try:
        text = path.read_text(encoding="utf-8").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise IngredientError(f"row {row.id}: {path} cannot be read: {error}") from error
    wrong = sorted(fragment.problems(text, folder / row.context if row.context else None))
    if wrong:
        raise MatrixError([f"{path}:{line}: {message}" for line, message in wrong])
    if unknown := list(fragment.unsupported(text, mounts=mounts, heredocs=heredocs)):
        raise IngredientError("\n".join(f"{path}:{line}: {message}" for line, message in unknown))
    return text


def copy_context(row: Row, folder: Path, target: Path) -> None:
    """Copy the files of the row's `context`, contents and permissions, to `target`.

    Raises IngredientError when something there is no file, cannot be read, or when the copy would contain itself.
    """
    if row.context is None:
        return
    source = folder / row.context
    if target.resolve().is_relative_to(source.resolve()):
        raise IngredientError(
            f"row {row.id}: the output goes to {target}, which is inside its own context {source}: name another folder "
            "with --out DIR, or a smaller `context`"
        )
    try:
        files, others = fragment.context_files(source)
        if others:
            raise IngredientError(
                f"row {row.id}: {others[0]} is neither a file nor a folder; put the file itself there"
            )
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    except OSError as error:
        raise IngredientError(f"row {row.id}: cannot copy {source} into the build context: {error}") from error
