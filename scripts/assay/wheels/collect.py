"""A folder of wheels for other machines: which rows get one, and how wheels of one name lie there side by side."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from assay.errors import IngredientError
from assay.files import file_sha256, write_json
from assay.matrix.row import Row
from assay.matrix.rules import PARTS
from assay.wheels.wheel import Wheel, read, record_path

# The builder stage has all parts up to flash-attn's own: where one of them is to fail, it fails too.
_BUILT_FOR_A_WHEEL = frozenset(f"build.{part}" for part in PARTS[: PARTS.index("flash-attn") + 1])

_WITHOUT_A_WHEEL = {
    "none": "it has no flash-attn",
    "base": "its base image brings flash-attn",
    "skip-cuda": "its flash-attn holds no kernels, so there is nothing to compile",
}


def left_out(row: Row) -> str | None:
    """Return why no wheel is made for a row; None where one is."""
    named = [reason.check for reason in row.because if reason.check in _BUILT_FOR_A_WHEEL]
    if named:
        return f"it is meant to fail at {named[0]}"
    return _WITHOUT_A_WHEEL.get(row.flash_attn.source)


class Collection:
    """A folder that gets wheels, each with its record beside it.

    Two wheels may have one name and differ, as those for two builds of torch do; the second gets a build number in its
    name, which installers know and ignore. What an earlier run left under a name is replaced, unless its record says
    that it was made by another recipe: another row may have paid for it with a compile.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._added: dict[str, str] = {}

    def add(self, wheel: Wheel) -> Path:
        """Put a wheel there, whole or not at all, and return where it is."""
        name, number = wheel.path.name, 1
        while self._is_anothers(name, wheel):
            number += 1
            name = _numbered(wheel.path.name, number)
        self._added[name] = wheel.sha256
        path = self.folder / name
        if not path.exists() or file_sha256(path) != wheel.sha256:
            # Without its old record, which would call the new wheel damaged.
            record_path(path).unlink(missing_ok=True)
            partial = path.with_name(f".{name}.part")
            shutil.copyfile(wheel.path, partial)
            partial.replace(path)
        if wheel.record:
            write_json(record_path(path), {**wheel.record, "filename": name})
        return path

    def _is_anothers(self, name: str, wheel: Wheel) -> bool:
        """Say whether a name is taken by a wheel that has to stay."""
        if name in self._added:
            return self._added[name] != wheel.sha256
        try:
            held = read(self.folder / name, source="wheelhouse")
        except (FileNotFoundError, IngredientError):  # what is damaged serves nobody
            return False
        key = held.record.get("key")
        return held.sha256 != wheel.sha256 and key is not None and key != wheel.record.get("key")


def _numbered(name: str, number: int) -> str:
    """Return a wheel's file name with a build number, in place of one that it has.

    >>> _numbered("flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl", 2)
    'flash_attn-2.8.3-2-cp311-cp311-linux_x86_64.whl'
    """
    return re.sub(r"^([^-]+-[^-]+)(?:-\d[^-]*)?((?:-[^-]+){3}\.whl)$", rf"\g<1>-{number}\g<2>", name)
