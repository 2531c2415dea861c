"""Wheels as the builder stage makes them for a row: with the row's recipe in their records."""

from __future__ import annotations

from pathlib import Path

from wheel_factory import wheel

from assay import wheels
from assay.files import file_sha256, write_json
from assay.matrix.row import Row
from assay.wheels import lean
from assay.wheels import wheel as wheel_file
from assay.wheels.wheelhouse import Store


def made(folder: Path, row: Row) -> wheels.Wheel:
    """Return a wheel as the builder stage makes it for a row, kept in the store as that does."""
    recipe = lean.recipe(row)
    path = wheel(folder, version=recipe.version)
    return Store(folder / "store").add(recipe.key(), path, source=recipe.source, record=recipe.record())


def numbered(folder: Path, row: Row, digest: str | None = None, *, text: str = "") -> wheels.Wheel:
    """Return a wheel for a row whose bytes are no other row's. digest: of a base that brings torch."""
    recipe = lean.recipe(row, digest or row.base.partition("@")[2] or None)
    path = wheel(folder, version=recipe.version)
    with path.open("ab") as file:
        file.write((text or row.id).encode())  # behind the archive's end: read by nobody
    write_json(wheel_file.record_path(path), {**recipe.record(), "key": recipe.key(), "sha256": file_sha256(path)})
    return wheel_file.read(path, source="compile")
