"""Tests of the drawing runtime, with real torch and the real sample model: `pytest tests/runtime`.

They need a Python with the packages of a row's locks, and no GPU. The runtime is imported from `docker/runtime`, as
test.py does in an image.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts")]

from sample_model import checkout  # noqa: E402 - makes `newbie` and `assay_checks` importable

assert checkout.ROOT == ROOT
with warnings.catch_warnings():
    # Both say on import that there is no GPU.
    warnings.simplefilter("ignore")
    importlib.import_module("diffusers.models.transformers.transformer_lumina2")
    importlib.import_module("transformers.models.gemma3")


@pytest.fixture(scope="session")
def model() -> Path:
    """Return the folder of the sample model that images carry, or of the one that SAMPLE_MODEL names."""
    folder = Path(os.environ.get("SAMPLE_MODEL", ROOT / "docker/runtime/sample-model"))
    assert (folder / "model_index.json").is_file(), f"{folder} is missing: train the model first"
    return folder


@pytest.fixture
def runtime(tmp_path: Path, model: Path) -> Path:
    """Return a copy of the runtime, sample model included, to damage."""
    folder = tmp_path / "newbie-home"
    shutil.copytree(ROOT / "docker/runtime", folder, ignore=shutil.ignore_patterns("__pycache__", "sample-model"))
    shutil.copytree(model, folder / "sample-model")
    return folder
