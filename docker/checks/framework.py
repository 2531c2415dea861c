"""What a check is, and how it answers. Standard library only: this file runs in every image, broken ones included.

A check is a function of `Expect` that returns an `Answer`; the decorator `check` gives it its id, the checks that it
needs, its level and its time limit, and puts it into `REGISTRY`. Checks import torch and the like inside the function,
never at the top of the file: the host reads the registry too, to know which ids exist.

`docker/checks` is one package, mounted read-only at `/opt/assay/checks`, and its folder is never on `sys.path`: a
check's file name can therefore never hide a library. Host code loads it as `assay_checks`; inside the image it is
`checks`, so files in it import each other relatively.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ID_PATTERN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*)+")


@dataclass(frozen=True)
class Answer:
    """What a check found.

    status: `passed`, `failed`, `not-run` (the question cannot be asked here; `measured` says why) or `error` (the check
        could not do its work; `evidence` says why). `blocked` is the runner's to give.
    required, measured: one line each, for people.
    evidence: error text or lines as the tool printed them.
    data: numbers and lists for machines; must be JSON.
    """

    status: str
    required: str = ""
    measured: str = ""
    evidence: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def passed(required: str, measured: str, evidence: str = "", **data: Any) -> Answer:
    """Answer that what was measured is what is required."""
    return Answer("passed", required, measured, evidence, data)


def failed(required: str, measured: str, evidence: str = "", **data: Any) -> Answer:
    """Answer that what was measured is not what is required."""
    return Answer("failed", required, measured, evidence or measured, data)


def not_run(required: str, why: str) -> Answer:
    """Answer that the question cannot be asked here, and why. It never counts as passed."""
    return Answer("not-run", required, why)


@dataclass(frozen=True)
class Expect:
    """What the host says that the image should hold: `expect.json` beside the checks, read-only. Every key is there.

    row: the row's id. level: `image` or `gpu`. seed: a number chosen for this run. sample: `{"prompts": n, "soak": n}`.
    python: version of the interpreter that the row names, `3.11`; null where the base image brings torch.
    cuda: `{"release": "12.1.1", "components": {"cudart": "12.1.105", "nvcc": ..., "nvjitlink": ..., "cublas": ...},
        "driver": {"shipped": "530.30.02", "minimum": "525.60.13"}}`. toolkit: where it comes from, as in the matrix
        (`wheels`, `base`, `debian`, `none`). library_path: `none` or `toolkit`.
    torch: `{"version": "2.4.0+cu121", "cuda": "12.1", "cxx11_abi": false, "archs": ["80", ...],
        "locked": {"nvidia-cublas-cu12": "12.1.3.1", ...}}`; `locked` is every Python package of the row's locks and
        requirements with its version. Where the base image brings torch, `locked` is empty and all but `cuda` is null.
    requirements: `{"package": "version", ...}`: the packages that the row adds to those of its locks or its base.
    flash_attn: `{"version": "2.8.3", "source": ..., "wheel": {"filename", "sha256", "files": {path: sha256}} or null,
        "head_dims": [...], "dtypes": [...]}`; what the matrix asks for, and what the host knows of the wheel it gave.
    gpus: the row's GPUs from the releases table, each `{"name": "A10", "capability": "8.6", "bf16_tflops": 125, ...}`.
    gpu: the GPU that the host chose for this run, `{"index", "name", "uuid", "driver", "capability", "library_path",
        "model", ...}`, or null; `library_path` is the folder that was added to LD_LIBRARY_PATH for the driver's files,
        null for none; `model` is its entry in the releases table, null where the table does not know it.
    runtime: `newbie` or `none`. runtime_files: path below the runtime's folder -> sha256, empty without a runtime.
    optional_libraries: files of packages that the row lets be unloadable: paths in a site folder, with wildcards.
    libraries: sonames that CUDA brings and the package that torch pins for each.
    """

    raw: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    @classmethod
    def read(cls, path: str) -> Expect:
        """Read the file that the host wrote."""
        return cls(json.loads(Path(path).read_text(encoding="utf-8")))


CheckFunction = Callable[[Expect], Answer]


@dataclass(frozen=True)
class Check:
    """One question put to an image.

    id: dotted, such as `torch.import`. question: one sentence. needs: ids without whose pass the question makes no
        sense.
    level: `image` or `gpu`. timeout: seconds after which the check counts as `error`.
    applies: says whether the question belongs to a row at all (a row without flash-attn has no flash-attn checks).
    needs_at_gpu: further needs at level `gpu`, of a check of level `image` that uses the GPU where there is one.
    """

    id: str
    question: str
    function: CheckFunction
    needs: tuple[str, ...] = ()
    level: str = "image"
    timeout: float = 60.0
    applies: Callable[[Expect], bool] | None = None
    needs_at_gpu: tuple[str, ...] = ()

    @property
    def every_need(self) -> tuple[str, ...]:
        """All needs. Those of level `gpu` are no obstacle at level `image`, where they are not asked."""
        return (*self.needs, *self.needs_at_gpu)


REGISTRY: dict[str, Check] = {}


def check(
    check_id: str,
    question: str,
    *,
    needs: tuple[str, ...] = (),
    level: str = "image",
    timeout: float = 60.0,
    applies: Callable[[Expect], bool] | None = None,
    needs_at_gpu: tuple[str, ...] = (),
) -> Callable[[CheckFunction], CheckFunction]:
    """Register a function as a check.

    Raises ValueError for an id that is not dotted lower case, is taken, or for a level that does not exist.
    """
    if not ID_PATTERN.fullmatch(check_id):
        raise ValueError(f"check id {check_id!r} is not dotted lower case like 'torch.import'")
    if check_id in REGISTRY:
        raise ValueError(f"check id {check_id!r} is registered twice")
    if level not in ("image", "gpu"):
        raise ValueError(f"check {check_id!r} has level {level!r}; it must be 'image' or 'gpu'")

    def register(function: CheckFunction) -> CheckFunction:
        REGISTRY[check_id] = Check(check_id, question, function, needs, level, timeout, applies, needs_at_gpu)
        return function

    return register
