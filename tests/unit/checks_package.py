"""Gives the tests the files of `docker/checks` as the host loads them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from assay.checks.definitions import PACKAGE, load_package

FOLDER = Path(__file__).resolve().parents[2] / "docker/checks"


def family(name: str) -> ModuleType:
    """Return one file of `docker/checks`."""
    load_package()
    return importlib.import_module(f"{PACKAGE}.{name}")
