"""Builds a flash-attn wheel from its sdist, in the builder stage: only the kernels asked for, or none at all.

Prints a line for each compiled file, `[7/26] flash_fwd_hdim96_bf16_sm80.cu 41 s`, and passes on what else the build
says. What is compiled stays in the work folder, so that a build that broke off goes on from there.
"""

# ruff: noqa: T201 - what it prints is the build's log

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import kernels

HERE = Path(__file__).resolve().parent

# Measured with nvcc 12.4 for one arch: the largest forward file (head dim 128) takes 4.3 GB.
JOB_BYTES = 4.3e9

NINJA_STEP = re.compile(r"\[(?P<done>\d+)/(?P<total>\d+)\] .*? -o (?P<object>\S+\.o)\b")
RELEASED = "1755129600"  # 2025-08-14, release of 2.8.3
LINE_CHARACTERS = 400  # a compiler's command line is ten times as long and says little


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the wheel; return 0, or what the failing build returned."""
    asked = parse(arguments)
    os.nice(10)  # a machine that compiles for minutes shall stay usable
    work = asked.work / toolchain()
    source = unpack(asked.sdist, work)
    recipe = work / "recipe.json"
    recipe.write_text(
        json.dumps(
            {
                "head_dims": asked.head_dims,
                "dtypes": asked.dtypes,
                "archs": asked.archs,
                "version": f"{public_version(source)}+{local_version(asked)}",
            }
        ),
        encoding="utf-8",
    )
    asked.wheel_dir.mkdir(parents=True, exist_ok=True)
    if not asked.skip_cuda:
        age(Path(importlib.metadata.distribution("torch").locate_file("torch/include")), Path(os.environ["CUDA_HOME"]))
    command = [sys.executable, str(HERE / "lean_setup.py"), str(recipe)]
    command += ["bdist_wheel", "--dist-dir", str(asked.wheel_dir)]
    code = follow(command, source, environment(asked))
    if code == 0:
        for wheel in asked.wheel_dir.glob("*.whl"):
            print(f"built {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
    return code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, which the Dockerfile spells out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdist", type=absolute, required=True, help="folder that holds the sdist, or the file")
    parser.add_argument("--work", type=absolute, required=True)
    parser.add_argument("--wheel-dir", type=absolute, required=True)
    parser.add_argument("--head-dims", type=int, nargs="+", default=[])
    parser.add_argument("--dtypes", nargs="+", default=[])
    parser.add_argument("--archs", nargs="+", default=[])
    parser.add_argument("--skip-cuda", action="store_true", help="build the package without its kernels")
    asked = parser.parse_args(arguments)
    if not asked.skip_cuda and not (asked.head_dims and asked.dtypes and asked.archs):
        parser.error("--head-dims, --dtypes and --archs, or --skip-cuda")
    return asked


def absolute(text: str) -> Path:
    """Read a path; the build runs in another folder."""
    return Path(text).absolute()


def toolchain() -> str:
    """Return a name for what objects depend on besides their sources: compilers, headers, torch and Python.

    One work folder serves builds that differ in it; each keeps its objects in a folder of its own.
    """
    made_from = Path(os.environ["CUDA_HOME"], "made-from.json")  # written by nvcc.py
    gcc = shutil.which("g++")
    parts = (
        made_from.read_text(encoding="utf-8") if made_from.exists() else "",
        subprocess.run([gcc, "--version"], capture_output=True, text=True, check=True).stdout if gcc else "",
        importlib.metadata.version("torch"),
        sys.version,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def age(*folders: Path) -> None:
    """Make installed headers as old as their release, so that ninja keeps objects of another base image's build.

    They were installed anew, and are newer than objects that an equal toolchain made before; that they are the same is
    what `toolchain` says.
    """
    released = float(RELEASED)
    for top in folders:
        for folder, _, names in os.walk(top, followlinks=True):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # a link to nowhere
                    os.utime(os.path.join(folder, name), (released, released))  # noqa: PTH118


def unpack(sdist: Path, work: Path) -> Path:
    """Unpack the sdist under `work`, unless it was before, and return its folder."""
    archive = sdist if sdist.is_file() else next(iter(sorted(sdist.glob("flash_attn-*.tar.gz"))), None)
    if archive is None:
        raise SystemExit(f"no flash_attn-*.tar.gz in {sdist}")
    work.mkdir(parents=True, exist_ok=True)
    source = work / archive.name[: -len(".tar.gz")]
    if not (source / "setup.py").exists():
        scratch = work / "unpacking"
        shutil.rmtree(scratch, ignore_errors=True)
        with tarfile.open(archive) as tar:
            # The archive is pinned by its hash; the filter keeps links and modes out of it where Python has one.
            tar.extractall(scratch, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # noqa: S202
        shutil.rmtree(source, ignore_errors=True)
        (scratch / source.name).rename(source)
    return source


def public_version(source: Path) -> str:
    """Return the version that the package gives itself."""
    text = (source / "flash_attn" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(?P<version>[^"]+)"', text, re.MULTILINE)
    if match is None:
        raise SystemExit(f"{source}/flash_attn/__init__.py names no version")
    return match["version"]


def local_version(asked: argparse.Namespace) -> str:
    """Return the local part of the wheel's version."""
    if asked.skip_cuda:
        return kernels.NO_KERNELS
    return kernels.Asked(tuple(asked.head_dims), tuple(asked.dtypes), tuple(asked.archs)).local_version


def environment(asked: argparse.Namespace) -> dict[str, str]:
    """Return the environment of the build."""
    return {
        **os.environ,
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",  # else setup.py looks for a release wheel on the network
        "FLASH_ATTENTION_SKIP_CUDA_BUILD": "TRUE" if asked.skip_cuda else "FALSE",
        "FLASH_ATTN_CUDA_ARCHS": ";".join(asked.archs),
        "FLASH_ATTN_LOCAL_VERSION": local_version(asked),
        "MAX_JOBS": str(1 if asked.skip_cuda else jobs()),
        "NVCC_THREADS": "1",  # more would multiply the memory of a job
        "SOURCE_DATE_EPOCH": RELEASED,  # times in the wheel do not depend on today
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
    }


def jobs() -> int:
    """Return how many files are compiled at once: one for each processor, as far as memory reaches."""
    by_memory = int(available_bytes() // JOB_BYTES)
    count = max(1, min(len(os.sched_getaffinity(0)), by_memory))
    print(f"compiling {count} files at once ({available_bytes() / 1e9:.1f} GB free)", flush=True)
    return count


def available_bytes() -> float:
    """Return the memory that is free for use: the machine's, or less where a limit is set on this container."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    available = float(re.search(r"MemAvailable:\s+(\d+) kB", meminfo)[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists():
        text = limit.read_text(encoding="ascii").strip()
        if text != "max":
            available = min(available, float(text) - float(used.read_text(encoding="ascii")))
    return available


def follow(command: list[str], folder: Path, env: dict[str, str]) -> int:
    """Run the build and print one line for each file that it compiled; return its exit code."""
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None  # noqa: S101 - PIPE
        for raw in process.stdout:
            line = raw.rstrip()
            step = NINJA_STEP.match(line)
            if step is None:
                print(line[:LINE_CHARACTERS], flush=True)
                continue
            built = Path(step["object"])
            name = source_name(folder, built)
            print(f"[{step['done']}/{step['total']}] {name} {compile_seconds(folder, built):.0f} s", flush=True)
        return process.wait()


def source_name(folder: Path, built: Path) -> str:
    """Return the name of the source that an object file was compiled from."""
    for source in folder.rglob(f"{built.stem}.c*"):
        return source.name
    return built.name


def compile_seconds(folder: Path, built: Path) -> float:
    """Return how long ninja says that an object took; it writes its log just after the line that we have read."""
    for _ in range(20):
        for log in folder.glob("build/temp*/.ninja_log"):
            for line in reversed(log.read_text(encoding="utf-8").splitlines()):
                fields = line.split("\t")
                if len(fields) >= 4 and Path(fields[3]).name == built.name:
                    return (int(fields[1]) - int(fields[0])) / 1000
        time.sleep(0.05)
    return float("nan")


if __name__ == "__main__":
    sys.exit(main())
