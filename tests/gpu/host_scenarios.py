"""What host_checks.py asks the GPU checks: a sound machine, each way to damage it, and what must be said of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).resolve().parents[2]
RELEASES = ROOT / "scripts/assay/releases"
EVERY_GPU_CHECK = (
    "driver.version",
    "gpu.visible",
    "gpu.matches-row",
    "libraries.exercised",
    "bf16.tensor-cores",
    "flash-attn.numerics",
    "flash-attn.speed",
)
FLASH_ATTN = ("flash-attn.numerics", "flash-attn.speed")
TIMED = ("bf16.tensor-cores", "flash-attn.speed")


@dataclass(frozen=True)
class Scenario:
    """One state of the machine and what the checks must say of it.

    wheel: glob for the flash-attn wheel in the wheelhouse. checks: asked, with their needs. failures: check id to a
    regular expression for its evidence; all root failures, no more and no fewer. errors: the same for checks that must
    give no verdict, matched against what they measured. says: the same for checks that must pass. alone: what is timed
    must come to a verdict, so nothing else uses the GPU; others: but for that many processes, which keep it at work.
    prepare: damages the unpacked wheel (first argument) or the expectation (second), and returns environment variables.
    """

    name: str
    wheel: str
    checks: tuple[str, ...] = EVERY_GPU_CHECK
    failures: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)
    alone: bool = False
    others: int = 0
    head_dims: tuple[int, ...] = (64, 96, 128)
    dtypes: tuple[str, ...] = ("bf16", "fp16")
    prepare: Callable[[Path, dict[str, Any]], dict[str, str]] = lambda site, expect: {}


def hide_gpu(site: Path, expect: dict[str, Any]) -> dict[str, str]:
    """Hide the GPU as an image's environment would."""
    return {"CUDA_VISIBLE_DEVICES": ""}


def disguise_sdpa(site: Path, expect: dict[str, Any]) -> dict[str, str]:
    """Put torch's attention under flash-attn's names."""
    shutil.copy(ROOT / "examples/gpu-host/sdpa-in-disguise/flash_attn_interface.py", site / "flash_attn")
    return {}


def ask_for_a100(site: Path, expect: dict[str, Any]) -> dict[str, str]:
    """Let the row be for another GPU than this one."""
    entry = next(one for one in table("gpus", "gpu") if one["name"] == "A100")
    expect["gpus"] = [{key.replace("-", "_"): value for key, value in entry.items()}]
    return {}


def ask_for_newer_driver(site: Path, expect: dict[str, Any]) -> dict[str, str]:
    """Pretend that the CUDA release needs a driver that does not exist yet."""
    expect["cuda"]["driver"] = {"shipped": "990.10", "minimum": "980.05"}
    return {}


def stray_library(site: Path, expect: dict[str, Any]) -> dict[str, str]:
    """Put a copy of cuFFT first on the loader's path, as a stray toolkit would be."""
    library = next(
        file.locate()
        for name in ("nvidia-cufft", "nvidia-cufft-cu12")
        for file in files_of(name)
        if "libcufft.so" in file.name
    )
    stray = site / "stray"
    stray.mkdir()
    shutil.copy(str(library), stray)
    # What the copy itself needs is still found where the original finds it.
    beside = [str(Path(str(library)).parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_PRELOAD": str(stray / Path(str(library)).name), "LD_LIBRARY_PATH": ":".join(beside)}


SOUND = "flash_attn-2.8.3-cp*"
LEAN = {"head_dims": (64,), "dtypes": ("bf16",)}
SCENARIOS = (
    Scenario("sound", SOUND, alone=True),
    Scenario(
        "shared-gpu",
        SOUND,
        TIMED,
        errors=dict.fromkeys(TIMED, r"but the GPU was \d+ % busy with other work"),
        alone=True,
        others=3,
    ),
    Scenario(
        "sm80-only",
        "flash_attn-2.8.3+sm80.only-*",
        FLASH_ATTN,
        dict.fromkeys(FLASH_ATTN, "no kernel image is available"),
        **LEAN,
    ),
    Scenario(
        "row-for-another-gpu",
        "flash_attn-2.8.3+sm80.only-*",
        FLASH_ATTN,
        errors={"gpu.matches-row": "none of the row's GPUs, and flash-attn holds no code for it"},
        prepare=ask_for_a100,
        **LEAN,
    ),
    Scenario("sound-for-another-gpu", SOUND, ("gpu.matches-row",), prepare=ask_for_a100),
    Scenario(
        "scaled",
        "flash_attn-2.8.3+scaled-*",
        FLASH_ATTN,
        {"flash-attn.numerics": r"scale 1\.0(09|10|11)"},
        alone=True,
        **LEAN,
    ),
    Scenario(
        "backward",
        "flash_attn-2.8.3+backward-*",
        ("flash-attn.numerics",),
        says={"flash-attn.numerics": "backward: checked"},
        **LEAN,
    ),
    Scenario(
        "empty-backward",
        "flash_attn-2.8.3+empty.backward-*",
        FLASH_ATTN,
        {"flash-attn.numerics": "bf16 head dim 64: dense 1500, GQA 24/8, d[qkv]"},
        alone=True,
        **LEAN,
    ),
    Scenario(
        "sdpa-in-disguise",
        SOUND,
        FLASH_ATTN,
        {"flash-attn.speed": r"no flash::flash_fwd kernel ran in flash_attn_(varlen_)?func; kernels seen: "},
        prepare=disguise_sdpa,
    ),
    Scenario("hidden", SOUND, EVERY_GPU_CHECK, {"gpu.visible": "CUDA_VISIBLE_DEVICES=''"}, prepare=hide_gpu),
    Scenario("old-driver", SOUND, ("driver.version",), {"driver.version": "too old"}, prepare=ask_for_newer_driver),
    Scenario(
        "stray-library",
        SOUND,
        ("libraries.exercised",),
        {"libraries.exercised": "libcufft.*stray"},
        prepare=stray_library,
    ),
)


def table(file: str, name: str) -> list[dict[str, Any]]:
    """Return one array of tables of the releases data."""
    entries: list[dict[str, Any]] = tomllib.loads((RELEASES / f"{file}.toml").read_text())[name]
    return entries


def files_of(name: str) -> list[metadata.PackagePath]:
    """Return the files of an installed package, none where it is not installed."""
    try:
        return list(metadata.files(name) or ())
    except metadata.PackageNotFoundError:
        return []
