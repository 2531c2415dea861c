"""Gives the tests the parts of `docker/runtime` that need no torch."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "docker/runtime"


def runtime(name: str) -> ModuleType:
    """Return one file of `docker/runtime/newbie`, as test.py imports it in an image."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(f"newbie.{name}")
