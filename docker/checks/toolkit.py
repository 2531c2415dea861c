"""The CUDA toolkit in `/usr/local/cuda-X.Y`: are its files the release's, and is it torch's CUDA release.

Every component is read from the files themselves, from as many of them as tell: a release's `version.json` alone
would only repeat what somebody wrote into it. What a file tells may be shorter than the component's version
(`CUDART_VERSION 12010` is 12.1): it must be its beginning.

A toolkit that this project made of NVIDIA's wheels must be complete, `version.json` included. One that came with the
base image or from a distribution is taken as it is: it may lack libraries and `version.json`, but every file that
tells a version must agree, and the runtime and the compiler must be told in full.
"""

from __future__ import annotations

import errno
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from .framework import Answer, Expect, check, failed, passed
from .toolkit_sources import SOURCES, from_macro

LOCAL = Path("/usr/local")
FOLDERS = ("bin", "include", "lib64", "nvvm")
# A disk in trouble, no memory, no more processes or files: the check breaks, and the image is not blamed.
OF_THE_MACHINE = (errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
# What tells a release from its neighbours: 13.0.1 and 13.0.2 share their nvcc, 12.1.0 and 12.1.1 their macros.
IN_FULL = ("cudart", "nvcc")
# How NVIDIA's own version.json names the components of the releases table.
NAMES_IN_VERSION_JSON = {
    "cudart": "cuda_cudart",
    "nvcc": "cuda_nvcc",
    "nvjitlink": "libnvjitlink",
    "nvrtc": "cuda_nvrtc",
    "cublas": "libcublas",
    "cccl": "cuda_cccl",
}


def has_toolkit(expect: Expect) -> bool:
    """Say whether the row asks for a toolkit at all."""
    return bool(expect["toolkit"] != "none")


def folder_of(release: str) -> Path:
    """Return where the toolkit of a release belongs: `/usr/local/cuda-12.1` for 12.1.1."""
    return LOCAL / f"cuda-{short(release)}"


def short(version: str) -> str:
    """Return major and minor of a version."""
    return ".".join(version.split(".")[:2])


@check(
    "toolkit.version",
    "Is every component in /usr/local/cuda-X.Y the one of the release that the row names?",
    timeout=90.0,
    applies=has_toolkit,
)
def version(expect: Expect) -> Answer:
    """Read every component's version from the toolkit's own files and compare it with the release's."""
    release, components = expect["cuda"]["release"], expect["cuda"]["components"]
    complete = expect["toolkit"] == "wheels"
    folder = folder_of(release)
    required = f"CUDA {release} in {folder}: " + ", ".join(f"{key} {value}" for key, value in components.items())
    if not folder.is_dir():
        there = ", ".join(sorted(str(path) for path in LOCAL.glob("cuda*"))) or "no CUDA folder"
        return failed(required, f"{folder} does not exist; {LOCAL} holds: {there}")
    readings, problems = read_sources(folder, components, complete=complete)
    problems += layout_problems(folder)
    stated, stated_problems = read_version_json(folder, release, components, optional=not complete)
    problems += stated_problems
    untold, untold_problems = find_untold(folder, components, readings, stated, complete=complete)
    problems += untold_problems
    facts = {"folder": str(folder), "readings": readings, "version.json": stated, "untold": untold}
    if problems:
        return failed(required, f"differences: {len(problems)}, such as {problems[0]}", "\n".join(problems), **facts)
    witnesses = [f"{len(readings)} files", f"{len(stated)} entries of version.json" if stated else "no version.json"]
    told = ", ".join(name for name in components if name not in untold)
    measured = f"CUDA {release} in {folder}: {told} told by {' and '.join(witnesses)}"
    if untold:
        measured += f"; no file tells {', '.join(untold)}"
    lines = (f"{reading['file']}: {reading['component']} {reading['version']}" for reading in readings)
    return passed(required, measured, "\n".join(lines), **facts)


def read_sources(folder: Path, components: dict[str, str], *, complete: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Read every source; return the readings, and a line per file that is missing, silent, or another version.

    complete: whether the toolkit must have every file that is not optional; else only the core ones.
    """
    major = components["cudart"].split(".")[0]
    # NVIDIA named this one libnvrtc.so.11.2 through CUDA 11 and by the major version since 12.
    names = {"major": major, "nvrtc": "11.2" if major == "11" else major}
    readings, problems = [], []
    for source in SOURCES:
        if source.component not in components:
            continue
        path, wanted = folder / source.path.format(**names), components[source.component]
        needed = source.core or (complete and not source.optional)
        if not path.exists():
            if needed:
                problems.append(f"{path} is missing (required: {source.component} {wanted})")
            continue
        try:
            told = source.read(path)
        except subprocess.TimeoutExpired:
            raise  # a slow machine: the check breaks, and the image is not blamed
        except (OSError, ValueError, AttributeError, subprocess.SubprocessError) as error:
            if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
                raise
            problems.append(f"{path} cannot be used: {error}")
            continue
        if not told:
            if needed:
                problems.append(f"{path} does not tell its version (required: {source.component} {wanted})")
            continue
        readings.append({"component": source.component, "file": str(path), "version": told})
        if not begins(wanted, told):
            problems.append(f"{path} is {source.component} {told}, not {wanted}")
    return readings, problems


def find_untold(
    folder: Path,
    components: dict[str, str],
    readings: list[dict[str, Any]],
    stated: dict[str, str],
    *,
    complete: bool,
) -> tuple[list[str], list[str]]:
    """Return the components whose version nothing tells, and a line for each that must be told and is not."""
    told: dict[str, set[str]] = {name: {stated[name]} if name in stated else set() for name in components}
    for reading in readings:
        told[reading["component"]].add(reading["version"])
    untold = [name for name in components if not told[name]]
    problems = []
    for name, wanted in components.items():
        if complete and name in untold:
            problems.append(f"no file of {folder} tells the version of {name}")
        elif not complete and name in IN_FULL and not any(parts(one) >= parts(wanted) for one in told[name]):
            known = f"only {max(told[name], key=len)} is told" if told[name] else "nothing is told"
            problems.append(f"no file of {folder} tells the version of {name} in full: {known}")
    return untold, problems


def read_version_json(
    folder: Path, release: str, components: dict[str, str], *, optional: bool
) -> tuple[dict[str, str], list[str]]:
    """Compare what `version.json` states with the release; return the statements and what is wrong with them."""
    path = folder / "version.json"
    if optional and not path.exists():
        return {}, []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stated = {
            ours: str(content[theirs]["version"]) for ours, theirs in NAMES_IN_VERSION_JSON.items() if theirs in content
        }
        stated_release = str(content["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, [f"{path} cannot be read as NVIDIA's version.json: {error!r}"]
    problems = [
        f"{path} states {name} {stated[name]}, not {wanted}"
        for name, wanted in components.items()
        if name in stated and stated[name] != wanted
    ]
    if not begins(release, short(stated_release)):
        problems.append(f"{path} states CUDA {stated_release}, not {release}")
    return stated, problems


def layout_problems(folder: Path) -> list[str]:
    """Return what a normal `/usr/local/cuda-X.Y` has and this one lacks."""
    problems = [f"{folder / name} is missing" for name in FOLDERS if not (folder / name).is_dir()]
    link = LOCAL / "cuda"
    if link.resolve() != folder.resolve():
        points = link.readlink() if link.is_symlink() else "no symbolic link"
        problems.append(f"{link} must lead to {folder}; it is {points}")
    return problems


@check(
    "toolkit.matches-torch",
    "Is the toolkit the CUDA release that torch is built for?",
    needs=("toolkit.version", "torch.import"),
    applies=has_toolkit,
)
def matches_torch(expect: Expect) -> Answer:
    """Hold the toolkit on disk against `torch.version.cuda` and the CUDA runtime that torch's own metadata pins."""
    import torch

    folder = folder_of(expect["cuda"]["release"])
    toolkit = from_macro("CUDA_VERSION")(folder / "include/cuda.h")
    cudart = expect["cuda"]["components"]["cudart"]  # toolkit.version has just shown that it is true
    pinned = _cudart_that_torch_pins()
    built_for = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}" + (
        f" (cudart {pinned})" if pinned else ""
    )
    is_there = f"the toolkit in {folder} is CUDA {toolkit} (cudart {cudart})"
    required = f"the toolkit is the CUDA release that torch is built for: {torch.version.cuda}"
    facts = {"toolkit": toolkit, "toolkit_cudart": cudart, "torch_cuda": torch.version.cuda, "torch_cudart": pinned}
    if toolkit != torch.version.cuda or (pinned and pinned != cudart):
        return failed(required, f"{is_there}; {built_for}", **facts)
    return passed(required, f"{is_there}; {built_for}", **facts)


def parts(version: str) -> int:
    """Return how many numbers a version has."""
    return version.count(".") + 1


def begins(version: str, told: str) -> bool:
    """Say whether `told` is the beginning of `version`, part by part: 12.1 begins 12.1.105, 12.10 does not."""
    parts = told.split(".")
    return version.split(".")[: len(parts)] == parts


def _cudart_that_torch_pins() -> str | None:
    """Return the CUDA runtime that torch's metadata pins: directly, or since torch 2.11 through `cuda-toolkit`'s."""
    from importlib import metadata

    for package in ("torch", "cuda-toolkit"):
        try:
            requirements = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in requirements:
            match = re.match(r"nvidia-cuda-runtime(?:-cu\d+)?\s*\(?==\s*(\d+(?:\.\d+)*)", requirement)
            if match:
                return match[1]
    return None
