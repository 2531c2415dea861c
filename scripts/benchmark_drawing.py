"""Time pictures on a GPU, side by side: flash-attn beside SDPA, resident text encoders beside moved ones.

    nox -s benchmark -- --image assay/cu121:latest
    python scripts/benchmark_drawing.py --host           without a container, on this machine's own torch

Each line of the table is a process of its own, in a hardened container that the GPU is given to as for the checks. The
lines take turns, ROUNDS times over, so that a GPU that warms up or is shared slows all of them alike. The first picture
of a process warms up and is not counted.
OUT gets a picture and a report of each line, and benchmark.json. About 6 minutes on an H100 and 20 GB of host memory,
nearly all of it for the full-size model's random weights; `--only sample` leaves that model out.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.engine import Engine
from assay.engine.containers import GIB, Mount
from assay.errors import AssayError

ROOT = Path(__file__).resolve().parents[1]
FULL_SIZE = ("--random-weights", "newbie-3b", "--gpu-profile", "H100")
TIMEOUT_SECONDS = 900.0
MEMORY_BYTES = 40 * GIB
"""The random weights lie in the host's memory first: 16.3 GiB of them, and a copy while they are cast."""


@dataclass(frozen=True)
class Line:
    """One line of the table: its name and what `test.py` is asked for."""

    name: str
    options: tuple[str, ...]


LINES = (
    *(Line(f"newbie-3b, {attention}", (*FULL_SIZE, "--attention", attention)) for attention in ("flash", "sdpa")),
    Line("newbie-3b, flash, within 16 GiB", (*FULL_SIZE, "--memory-budget", "16", "--attention", "flash")),
    Line("newbie-3b, flash, unguided", (*FULL_SIZE, "--guidance", "1", "--attention", "flash")),
    *(Line(f"sample model, {attention}", ("--attention", attention)) for attention in ("flash", "sdpa")),
)


def main() -> int:
    """Time what is asked for. Exit code 0 when every line was drawn, 1 when one was not, 2 for bad usage."""
    options = parse()
    lines = [line for line in LINES if options.only in line.name]
    if not lines:
        print(f"no line's name contains {options.only!r}: {'; '.join(line.name for line in LINES)}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        draw, where = on_host(options.out) if options.host else in_container(options)
        print(f"drawing {where}; {len(lines)} lines, {options.rounds} rounds", flush=True)
        timed = time_lines(lines, draw, options)
    except AssayError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    except (subprocess.CalledProcessError, FileNotFoundError, RuntimeError) as error:
        print(f"benchmark: a line was not drawn, so there is nothing to compare: {error}", file=sys.stderr)
        return 1
    rows = [summary(line, timed[line.name]) for line in lines]
    print(table(rows))
    record = {"where": where, "date": time.strftime("%Y-%m-%d", time.gmtime()), "pictures": options.pictures,
              "rounds": options.rounds, "lines": rows}  # fmt: skip
    (options.out / "benchmark.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {options.out / 'benchmark.json'}")
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--image", help="tag or id of an image in the engine that carries the drawing runtime")
    where.add_argument("--host", action="store_true", help="this Python's own torch, diffusers and flash-attn instead")
    parser.add_argument("--out", type=Path, default=Path("build/benchmark"), metavar="DIR")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the lines whose name contains TEXT")
    parser.add_argument("--pictures", type=int, default=3, help="per process, the first warms up; default: 3")
    parser.add_argument("--rounds", type=int, default=2, help="processes per line, taking turns; default: 2")
    parser.add_argument("--steps", type=int, help="fewer steps than a picture needs: times fall in proportion")
    parser.add_argument("--gpu", metavar="WAY", help="runtime, cdi, devices, or a GPU's index or UUID")
    options = parser.parse_args()
    if options.pictures < 2 or options.rounds < 1:
        parser.error("--pictures is 2 or more, since the first warms up, and --rounds 1 or more")
    options.out = options.out.resolve()
    return options


Draw = Callable[[Sequence[str], str], None]
"""Draw with options of `test.py`, into files of a name (picture and report) in the folder for results."""


def in_container(options: argparse.Namespace) -> tuple[Draw, str]:
    """Return how a line is drawn in a container, and where that is. Raises AssayError without engine, image or GPU."""
    engine = Engine.connect(start=False)
    gpu = engine.gpu_access(options.gpu)
    if gpu is None:
        raise AssayError("no GPU here that a container can get at: run this on a GPU host, or name one with --gpu")
    image = engine.inspect(options.image).id
    mount = Mount(source=options.out, target="/out", read_only=False)

    def draw(arguments: Sequence[str], name: str) -> None:
        command = ["python", "test.py", *arguments, "--output", f"/out/{name}.png", "--report", f"/out/{name}.json"]
        done = engine.run(
            image, command, mounts=[mount], gpu=gpu, memory_bytes=MEMORY_BYTES, timeout=TIMEOUT_SECONDS,
            user=f"{os.getuid()}:{os.getgid()}", on_line=say,
        )  # fmt: skip
        if done.exit_code:
            raise RuntimeError(f"exit code {done.exit_code}: {' '.join(done.stderr_tail[-1:])}")

    return draw, f"in {options.image} ({image[:19]}), {gpu.description}"


def on_host(out: Path) -> tuple[Draw, str]:
    """Return how a line is drawn by this very Python, and where that is."""

    def draw(arguments: Sequence[str], name: str) -> None:
        command = [sys.executable, str(ROOT / "docker/runtime/test.py"), *arguments]
        files = ["--output", str(out / f"{name}.png"), "--report", str(out / f"{name}.json")]
        subprocess.run([*command, *files], check=True, timeout=TIMEOUT_SECONDS)

    return draw, f"on this machine's own Python, {sys.executable}"


def time_lines(lines: Sequence[Line], draw: Draw, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Draw every line once a round, and return the reports of `test.py` by line."""
    reports: dict[str, list[dict[str, Any]]] = {line.name: [] for line in lines}
    for number in range(options.rounds):
        for line in lines:
            print(f"-- round {number + 1} of {options.rounds}: {line.name}", flush=True)
            name = line.name.replace(", ", "-").replace(" ", "-")
            steps = ["--steps", str(options.steps)] if options.steps else []
            draw([*line.options, *steps, "--pictures", str(options.pictures)], name)
            reports[line.name].append(json.loads((options.out / f"{name}.json").read_text(encoding="utf-8")))
    return reports


def summary(line: Line, reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a line's times in seconds per picture over all rounds, its peak memory, and what drew."""
    seconds = [value for report in reports for value in report["seconds"][1:]]
    kept = ("device", "dtype", "attention", "attention_calls", "size", "steps", "solver", "guidance")
    return {
        "name": line.name,
        "median": round(statistics.median(seconds), 4),
        "least": min(seconds),
        "most": max(seconds),
        "peak_bytes": max((report["peak_bytes"] for report in reports if report["peak_bytes"]), default=None),
        **{name: reports[0].get(name) for name in kept},
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the lines for people: seconds per picture (median, least, most) and peak GPU memory in GiB."""
    width = max(len(row["name"]) for row in rows)
    head = f"{'':{width}}  {'median s':>9} {'least':>9} {'most':>9} {'peak GiB':>9}"
    body = [
        f"{row['name']:{width}}  {row['median']:9.4f} {row['least']:9.4f} {row['most']:9.4f} "
        + (f"{row['peak_bytes'] / GIB:9.2f}" if row["peak_bytes"] else f"{'no GPU':>9}")
        for row in rows
    ]
    return "\n".join([head, *body])


def say(line: str) -> None:
    """Pass on what a container prints."""
    print(f"   {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
