"""Write a picture as PNG, with how it was made in its text chunks."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .errors import OutputError

PACKAGES = ("torch", "diffusers", "transformers", "flash-attn")


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide how a picture comes out; those not installed are absent."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return {**found, "torch": str(torch.__version__)}


@contextlib.contextmanager
def reserved(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` to write to; it takes the name `path` when the block ends well, else it is gone.

    Raises OutputError at once where nothing can be written there: better before drawing than after.
    """
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; --output takes the name of a file")
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}. Give --output a file in a folder that can be written to, such as "
            f"{tempfile.gettempdir()}/{path.name}; for a file that outlives the container, mount a folder: "
            f"`docker run -v $PWD:/out ... --output /out/{path.name}`"
        ) from error
    os.close(descriptor)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o644)
        try:
            unfinished.replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def save(picture: torch.Tensor, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a picture, (height, width, 3) uint8, as PNG. facts: name to value, one text chunk each, as UTF-8."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for name, value in facts.items():
        texts.add_itxt(name, str(value))
    try:
        Image.fromarray(picture.numpy()).save(path, format="PNG", pnginfo=texts, optimize=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
