"""Reach the code that goes into images and is no installed package: `docker/checks`, `docker/runtime`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def expose() -> None:
    """Make `docker/checks` importable as `assay_checks` and `docker/runtime/newbie` as `newbie`."""
    folder = ROOT / "docker" / "checks"
    if "assay_checks" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "assay_checks", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{folder} holds no package: run from a complete checkout")
        module = importlib.util.module_from_spec(spec)
        sys.modules["assay_checks"] = module
        spec.loader.exec_module(module)
    runtime = str(ROOT / "docker" / "runtime")
    if runtime not in sys.path:
        sys.path.insert(0, runtime)


expose()
