"""A run: every row of a matrix on one engine, and the report of it."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from assay import checks, keys, releases
from assay.engine import Engine, GpuAccess
from assay.errors import EngineError
from assay.files import exclusive
from assay.findings import Level
from assay.matrix import Matrix
from assay.matrix.row import Row
from assay.matrix_output import refuse_to_overwrite
from assay.network import NetworkSettings
from assay.progress import View
from assay.releases import Releases
from assay.releases.arch import runs_on
from assay.report import Report, RowReport, write
from assay.row_record import inconclusive
from assay.row_run import check_row, judge_row
from assay.surroundings import Surroundings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line decides about a run.

    level: `auto` takes the GPU where there is one. gpu: how containers reach it, found out when None. key: file of the
    private key that signs certificates, or None for unsigned ones.
    """

    out: Path
    level: Literal["auto", "image", "gpu"] = "auto"
    gpu: str | None = None
    jobs: int = 1
    wheelhouses: tuple[Path, ...] = ()
    fresh: bool = False
    key: Path | None = None

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Settings:
        """Read the options of `assay matrix` or `assay check`."""
        return cls(
            out=args.out,
            level=args.level,
            gpu=args.gpu,
            jobs=getattr(args, "jobs", 1),
            wheelhouses=tuple(args.wheelhouse),
            fresh=getattr(args, "fresh", False),
            key=Path(args.key) if args.key else None,
        )


def run_matrix(
    matrix: Matrix, rows: Sequence[Row], settings: Settings, *, view: View, cancel: threading.Event
) -> Report:
    """Judge the rows and write the report into `settings.out`.

    Raises Busy when another run is at work there, EngineError when there is no engine to work with.
    """
    with exclusive(settings.out):
        around = _surroundings(matrix, rows, settings, view, cancel)
        for note in (
            *foreign_gpu(rows, around.gpu, around.releases),
            *several_capabilities(rows, around.gpu, around.releases),
        ):
            view.note(note)

        def judge(row: Row) -> RowReport:
            if cancel.is_set():
                return inconclusive(row, around.level, "interrupted before it began")
            return judge_row(row, around)

        started = datetime.now(timezone.utc)
        clock = time.monotonic()
        with view.live(), ThreadPoolExecutor(settings.jobs, thread_name_prefix="row") as pool:
            reports = tuple(pool.map(judge, rows))
        report = Report(
            level=around.level,
            rows=reports,
            started=started.isoformat(timespec="seconds"),
            seconds=time.monotonic() - clock,
            engine=f"Docker Engine {around.engine.version}",
            storage=around.engine.storage([row.image.id for row in reports if row.image]),
        )
        write(report, settings.out)
        return report


def check_image(
    image: str, matrix: Matrix, row: Row, settings: Settings, *, view: View, cancel: threading.Event
) -> Report:
    """Judge one image, whoever built it, as `row`, and write the report of that one row.

    Raises UsageError where that would overwrite what a run of the matrix wrote, IngredientError when the engine does
    not have the image.
    """
    with exclusive(settings.out):
        refuse_to_overwrite(settings.out, row.id)
        around = _surroundings(matrix, (row,), settings, view, cancel)
        around.engine.inspect(image)  # a name that was mistyped is no verdict, and overwrites none
        started, clock = datetime.now(timezone.utc), time.monotonic()
        with view.live():
            row_report = check_row(image, row, around)
        report = Report(
            level=around.level,
            rows=(row_report,),
            started=started.isoformat(timespec="seconds"),
            seconds=time.monotonic() - clock,
            engine=f"Docker Engine {around.engine.version}",
        )
        write(report, settings.out)
        return report


def foreign_gpu(rows: Sequence[Row], gpu: GpuAccess | None, table: Releases) -> list[str]:
    """Return a warning for the rows that this machine's GPU is not for, before anything is built for them.

    A wheel from a wheelhouse may hold more code than the row asks for, so this is no more than a warning; the check
    `gpu.matches-row` reads the image itself.
    """
    capability = gpu.gpu.capability if gpu else ""
    if gpu is None or not capability:
        return []
    others = [
        row.id
        for row in rows
        if capability not in {table.gpu(name).capability for name in row.gpus}
        and not any(runs_on(arch, capability) for arch in row.flash_attn.archs)
    ]
    if not others:
        return []
    return [
        f"{', '.join(others)}: neither `gpus` nor `archs` name this machine's {gpu.name} ({capability}). Without code "
        "for it in the image there will be no verdict at level gpu: make rows for it, or judge with --level image"
    ]


def several_capabilities(rows: Sequence[Row], gpu: GpuAccess | None, table: Releases) -> list[str]:
    """Return a warning for the rows that no certificate of level gpu can speak for as a whole, before it is worked for.

    A run judges on one GPU. The gate before publishing refuses what was judged for one compute capability of several.
    """
    mixed = [
        row.id
        for row in rows
        if row.expect == "certify"
        and row.required_level is Level.GPU
        and len({table.gpu(name).capability for name in row.gpus}) > 1
    ]
    if gpu is None or not mixed:
        return []
    return [
        f"{', '.join(mixed)}: `gpus` names several compute capabilities, and {gpu.name} speaks for one. Publishing at "
        "level gpu will refuse that: make a row for each, or ask for level image (`required-level`)"
    ]


def _surroundings(
    matrix: Matrix, rows: Sequence[Row], settings: Settings, view: View, cancel: threading.Event
) -> Surroundings:
    key = keys.load_signing_key(settings.key)  # before an engine is started for nothing
    engine = Engine.connect(on_note=view.note)
    view.note(f"Docker Engine {engine.version} at {engine.host}")
    table = releases.load()
    level, gpu = _level(rows, table, settings, engine, view)
    return Surroundings(
        engine=engine,
        network=NetworkSettings.from_host(),
        releases=table,
        checks_digest=checks.digest(),
        folder=matrix.path.parent,
        out=settings.out,
        level=level,
        gpu=gpu,
        wheelhouses=settings.wheelhouses,
        fresh=settings.fresh,
        key=key,
        view=view,
        cancel=cancel,
    )


def _level(
    rows: Sequence[Row], table: Releases, settings: Settings, engine: Engine, view: View
) -> tuple[Level, GpuAccess | None]:
    """Return the level of this run, and the GPU for it: of several, one of a compute capability that the rows are for.

    Raises EngineError when level gpu is asked for without one.
    """
    if settings.level == "image":
        return Level.IMAGE, None
    gpu = engine.gpu_access(settings.gpu, {table.gpu(name).capability for row in rows for name in row.gpus})
    if gpu is not None:
        view.note(f"level gpu: {gpu.description}" + (f"; taken from what {gpu.among} leaves" if gpu.among else ""))
        return Level.GPU, gpu
    why = "--gpu none" if settings.gpu == "none" else engine.why_no_gpu()
    if settings.level == "gpu":
        raise EngineError(
            f"--level gpu: no GPU that containers on this engine could reach ({why}); check `nvidia-smi` on the "
            "engine's host, say how with --gpu, or certify without one with --level image"
        )
    view.note(f"{why}: level image; nothing that needs a GPU is asked, and nothing of level gpu counts as passed")
    return Level.IMAGE, None
