"""What a row adds of its own: the rules for its requirements and its Dockerfile instructions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from assay import fragment, pinned, requirements
from assay.errors import IngredientError, MatrixError
from assay.files import file_sha256
from assay.matrix.row import Requirements
from assay.matrix.shape import brief

if TYPE_CHECKING:
    from assay.matrix.draft import Draft
    from assay.matrix.rule import Context, Problem
    from assay.matrix.schema import RowFields


def beside(source: str, folder: Path) -> str | None:
    """Return what is wrong with a path that is to lead to something beside the matrix file, None when nothing is."""
    path = PurePosixPath(source)
    if path.is_absolute() or ".." in path.parts:
        return f"{source!r} must lie beside the matrix file: give a relative path without '..'"
    if path == PurePosixPath():
        return (
            f"{source!r} is the folder of the matrix file itself, and what assay writes there would become part of the "
            "image: name a file or folder in it"
        )
    try:
        there = (folder / path).exists()
    except OSError as error:
        return f"{brief(source)} cannot be looked for beside the matrix file: {error.strerror}"
    return None if there else f"{source!r} does not exist beside the matrix file ({folder})"


def shown(path: Path) -> Path:
    """Return a path as messages name it: short where the working directory makes it so."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def packages(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """The requirements are pinned, with hashes, and contradict none of the row's own locks."""
    if not row.requirements:
        return
    path = context.folder / row.requirements
    if why := beside(row.requirements, context.folder) or _no_file(path, row.requirements):
        yield ("requirements",), why
        return
    try:
        file = requirements.read(path)
    except OSError as error:
        yield ("requirements",), f"{row.requirements!r} cannot be read: {error.strerror}"
        return
    found = list(file.problems)
    if not file.pins and not found:
        found = [(1, "it holds no package; leave `requirements` out where there is nothing to add")]
    build = context.releases.torches.get(row.torch)
    if build or row.torch == "base":  # an unknown torch has been reported, and has no locks
        locks = pinned.python_locks(build, python=row.python, runtime=row.runtime, flash_attn=row.flash_attn.source)
        try:
            held = pinned.locked(locks.values())
        except IngredientError:
            held = {}  # a Python that this torch has no wheel for, which has been reported as well
        found += pinned.conflicts(file.pins, held, flash_attn=row.flash_attn.source)
    for line, message in sorted(found):
        yield ("requirements",), f"{shown(path)}:{line}: {message}"


def instructions(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """The instructions can end a Dockerfile, and what they copy is there."""
    folder = context.folder / row.context if row.context else None
    if row.context and folder:
        if row.dockerfile is None:
            yield (
                ("context",),
                "`context` is what `dockerfile` copies from, and the row has none: add it, or leave this out",
            )
        if why := beside(row.context, context.folder) or _no_context(folder, row.context):
            yield ("context",), why
            return
    if not row.dockerfile:
        return
    path = context.folder / row.dockerfile
    if why := beside(row.dockerfile, context.folder) or _no_file(path, row.dockerfile):
        yield ("dockerfile",), why
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        yield ("dockerfile",), f"{row.dockerfile!r} cannot be read: {reason}"
        return
    for line, message in sorted(fragment.problems(text, folder)):
        yield ("dockerfile",), f"{shown(path)}:{line}: {message}"


def resolve(source: str | None, folder: Path) -> Requirements | None:
    """Return the requirements of a row whose rules have been asked. Raises MatrixError when the file changed since."""
    if not source:
        return None
    file = requirements.read(folder / source)
    if file.problems:
        raise MatrixError([f"{shown(folder / source)}: changed while the matrix was read; run again"])
    packages = tuple((pin.name, pin.version) for pin in file.pins)
    return Requirements(path=source, sha256=file.sha256, packages=packages)


def content(row: RowFields, folder: Path) -> str | None:
    """Return a digest of all files that a row brings besides its requirements, None where it brings none.

    A certificate holds it with the row: it says of an image what it was made from, and not only by which names.
    Raises MatrixError when one cannot be read.
    """
    named = [*row.files.values(), *filter(None, [row.dockerfile, row.context])]
    total = hashlib.sha256()
    try:
        for name in sorted(set(named)):
            path = folder / name
            below = [path] if path.is_file() else sorted(fragment.context_files(path)[0])
            for file in below:
                place = f"{name}/{file.relative_to(path).as_posix()}" if file != path else name
                total.update(f"{place}\0{file_sha256(file)}\n".encode())
    except OSError as error:
        raise MatrixError([f"{shown(Path(error.filename or folder))}: cannot be read: {error.strerror}"]) from error
    return total.hexdigest() if named else None


def _no_file(path: Path, source: str) -> str | None:
    return None if path.is_file() else f"{source!r} is no file"


def _no_context(folder: Path, source: str) -> str | None:
    if not folder.is_dir():
        return f"{source!r} is no folder"
    try:
        _, others = fragment.context_files(folder)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    if not others:
        return None
    kind = "is a symbolic link" if others[0].is_symlink() else "is neither file nor folder"
    more = f" (and {len(others) - 1} more like it)" if len(others) > 1 else ""
    return f"{shown(others[0])} {kind}{more}: a `context` holds files and folders only, put the file itself there"
