"""Every family of checks, in the order in which their answers read best. Importing this module fills the registry.

A family that cannot be imported is never dropped in silence: its traceback is kept in `BROKEN`. The host refuses to
start with a broken family, and the runner in the image reports it, so that the family's checks come out as `error`.
"""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path

FAMILIES = (
    "toolkit",
    "torch_build",
    "packages",
    "files",
    "libraries",
    "library_origins",
    "flash_attention",
    "driver",
    "gpu",
    "libraries_gpu",
    "bf16",
    "flash_attention_gpu",
    "sample",
    "runtime_files",
)

BROKEN: dict[str, str] = {}


def load_all() -> None:
    """Import every family that has a file; remember the traceback of each that breaks."""
    for family in FAMILIES:
        if not Path(__file__).with_name(f"{family}.py").is_file():
            continue
        try:
            importlib.import_module(f".{family}", __package__)
        except Exception:
            BROKEN[family] = traceback.format_exc()


load_all()
