"""What is known of a row, in the forms in which it is kept: findings, ingredients, and its part of the report."""

from __future__ import annotations

from dataclasses import asdict

from assay.causes import cause
from assay.certificate import GpuUsed, Ingredient, RowEvidence
from assay.compose import Composed
from assay.compose.context import REQUIREMENTS
from assay.engine import GpuAccess
from assay.errors import BuildFailed
from assay.files import file_sha256
from assay.findings import Finding, Level, Status
from assay.matrix.row import Row
from assay.report import ImageRecord, RowReport
from assay.wheels import Wheel


def inconclusive(row: Row, level: Level, why: str) -> RowReport:
    """Return the report of a row about which nothing could be found out."""
    return RowReport(
        id=row.id,
        what=row.what,
        expect=row.expect,
        because=_because(row),
        verdict="inconclusive",
        as_expected=False,
        complete=False,
        level=level,
        why=why,
    )


def report(evidence: RowEvidence, row: Row, *, build_seconds: float, cached: bool) -> RowReport:
    """Return the report of a row from its evidence, fresh or read back from its certificate."""
    return RowReport(
        id=row.id,
        what=row.what,
        expect=row.expect,
        because=_because(row),
        verdict=evidence.verdict.verdict,
        as_expected=evidence.verdict.as_expected,
        complete=evidence.verdict.complete,
        level=evidence.level,
        why=evidence.verdict.why,
        image=None
        if evidence.image is None
        else ImageRecord(id=evidence.image.id, tags=evidence.image.tags, size=evidence.image.size),
        build_seconds=build_seconds,
        check_seconds=sum(finding.seconds for finding in evidence.findings) if evidence.image else 0.0,
        findings=evidence.findings,
        cached=cached,
        gpu=asdict(evidence.gpu) if evidence.gpu else None,
        ingredients=tuple(asdict(ingredient) for ingredient in evidence.ingredients),
    )


def build_finding(failure: BuildFailed, seconds: float) -> Finding:
    """Return a failed build as a finding."""
    return Finding(
        check=f"build.{failure.part}",
        status=Status.FAILED,
        required=f"part {failure.part} of the image builds",
        measured=f"{cause(failure.log) or 'it printed nothing'} (exit of this step: {failure.step})",
        evidence="\n".join(failure.log),
        seconds=seconds,
    )


def ingredients(row: Row, composed: Composed, wheel: Wheel | None) -> tuple[Ingredient, ...]:
    """Return what goes into the row's image, as far as it is known before the build."""
    locks = [
        Ingredient(name=f"lock {path.name}", version="", sha256=file_sha256(path), source="docker/locks")
        for path in sorted(composed.folder.glob("locks/*.txt"))
        if path.name != REQUIREMENTS
    ]
    if row.requirements:  # as the row names the file, not as the build gets it: without what the other locks hold
        own = row.requirements
        locks.append(Ingredient(name=f"lock {REQUIREMENTS}", version="", sha256=own.sha256, source=own.path))
    return (*locks, *wheel_ingredient(wheel))


def wheel_ingredient(wheel: Wheel | None) -> tuple[Ingredient, ...]:
    """Return the flash-attn wheel as an ingredient, nothing where there is none."""
    if wheel is None:
        return ()
    return (
        Ingredient(
            name="flash-attn",
            version=wheel.version,
            sha256=wheel.sha256,
            source=wheel.source,
            compiler=wheel.compiler,
        ),
    )


def gpu_used(gpu: GpuAccess | None) -> GpuUsed | None:
    """Return the GPU as a certificate names it."""
    return None if gpu is None else GpuUsed(name=gpu.name, uuid=gpu.uuid, driver=gpu.driver, access=gpu.mode)


def _because(row: Row) -> tuple[dict[str, str], ...]:
    return tuple({"check": reason.check, "matches": reason.matches} for reason in row.because)
