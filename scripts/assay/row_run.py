"""What happens to one row: composed, looked up, built, checked, judged, put on record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from assay import __version__, base, checks, row_record, wheels
from assay.base import BaseImage
from assay.certificate import (
    CacheInputs,
    ImageIdentity,
    Ingredient,
    RowEvidence,
    cache,
    make_certificate,
    row_json,
    store,
)
from assay.compose import Composed
from assay.compose.variables import WHEEL_LABEL
from assay.engine.images import Image
from assay.errors import AssayError, BuildFailed, CertificateError, IngredientError
from assay.files import write_atomically, write_json
from assay.findings import Finding
from assay.matrix.row import Row
from assay.progress import follow_build
from assay.report import RowReport
from assay.report.words import outcome
from assay.row_build import build, compose_row, image_tag, provide
from assay.surroundings import Surroundings
from assay.verdict import Verdict, judge
from assay.wheels import Wheel


def judge_row(row: Row, around: Surroundings) -> RowReport:
    """Take one row from its line in the matrix to its verdict.

    Trouble of any kind makes the row inconclusive and says why; it never reaches the other rows.
    """
    return _guarded(row, around, lambda: _judge(row, around))


def check_row(image: str, row: Row, around: Surroundings) -> RowReport:
    """Judge an image that is there already, as `row`."""
    return _guarded(row, around, lambda: _check(image, row, around))


def _guarded(row: Row, around: Surroundings, work: Callable[[], RowReport]) -> RowReport:
    try:
        report = work()
    except AssayError as error:
        report = row_record.inconclusive(row, around.level, around.network.masked(str(error)))
    except OSError as error:  # this machine's disk, not a defect of assay
        report = row_record.inconclusive(
            row, around.level, f"{error.filename or around.out}: {error.strerror or error}"
        )
    except Exception as error:
        trace = around.out / row.id / "defect.txt"
        write_atomically(trace, around.network.masked(traceback.format_exc()))
        broke = around.network.masked(f"assay itself broke: {error!r}; please report {trace}")
        report = row_record.inconclusive(row, around.level, broke)
    around.view.verdict(row.id, report.verdict, report.why, outcome=outcome(report), cached=report.cached)
    return report


def _judge(row: Row, around: Surroundings) -> RowReport:
    wheel = wheels.lookup(row, wheelhouses=around.wheelhouses, engine=around.engine)
    if wheel is None and row.flash_attn.source in wheels.READY_MADE:
        wheel = provide(row, around)  # a Dockerfile can only be composed around it
    composed = compose_row(row, wheel, around)
    cached = None if around.fresh else _recorded(row, composed, wheel, around)
    if cached:
        return cached
    _forget(around.out / row.id)

    started, clock = datetime.now(timezone.utc), time.monotonic()
    around.view.phase(row.id, "base", row.base)
    base_image = base.ensure(
        around.engine,
        row.base,
        around.network,
        on_event=follow_build(around.view, row.id),
        installs_torch=row.torch != "base",
    )
    try:
        wheel, composed, image_id = build(row, wheel, composed, around)
    except BuildFailed as failure:
        finding = row_record.build_finding(failure, time.monotonic() - clock)
        write_json(around.out / row.id / "findings.json", [finding.to_json()])
        verdict = judge(row, [finding], checks.required(row, around.level))
        made_of = row_record.ingredients(row, composed, wheel)
        evidence = _evidence(
            row, around, verdict, [finding], None, composed.digest, base_image.digest, made_of, started
        )
        return _record(evidence, row, around, build_seconds=time.monotonic() - clock)
    build_seconds = time.monotonic() - clock
    found = around.engine.inspect(image_id)
    if found.layers[: len(base_image.layers)] != base_image.layers:
        raise IngredientError(
            f"the image was built on another base than {base_image.ref} ({base_image.digest}): "
            + _what_moved(base_image)
        )
    image = ImageIdentity(id=image_id, size=found.size, tags=found.tags)
    findings = run_checks(row, image_id, wheel, around)
    verdict = judge(row, findings, checks.required(row, around.level))
    made_of = row_record.ingredients(row, composed, wheel)
    evidence = _evidence(row, around, verdict, findings, image, composed.digest, base_image.digest, made_of, started)
    return _record(evidence, row, around, build_seconds=build_seconds)


def _what_moved(base_image: BaseImage) -> str:
    """Say what makes an image stand on another base than the engine's own, and what to do.

    An engine with containerd's image store asks the registry at every build, where a tag may have moved on since the
    engine got it: then running again changes nothing. A digest never moves, and assay's own names are in no registry.
    """
    if "@" in base_image.ref or base_image.ref.startswith(base.OWN_NAMES):
        return "the name was given to another image meanwhile: run again"
    return (
        "the name was given to another image meanwhile, or its tag in the registry was, which the engine follows while "
        f"it builds: run `docker pull {base_image.ref}` and then this again, or name the base by its digest in the "
        f'matrix (base = "{base_image.ref}@sha256:...")'
    )


def _check(image: str, row: Row, around: Surroundings) -> RowReport:
    """Judge an image that is there already.

    What it was built from is not known, whatever its labels say: an image derived from another one, or committed from
    a container, has the other's labels. The certificate names no Dockerfile and no base, and so cannot be published.
    """
    found = around.engine.inspect(image)
    wheel = _wheel_inside(found, wheels.lookup(row, wheelhouses=around.wheelhouses, engine=around.engine))
    _forget(around.out / row.id)
    started = datetime.now(timezone.utc)
    findings = run_checks(row, found.id, wheel, around)
    verdict = judge(row, findings, checks.required(row, around.level))
    evidence = _evidence(
        row,
        around,
        verdict,
        findings,
        ImageIdentity(id=found.id, size=found.size, tags=found.tags),
        None,
        None,
        row_record.wheel_ingredient(wheel),
        started,
    )
    return _record(evidence, row, around, build_seconds=0.0)


def _forget(folder: Path) -> None:
    """Remove what an earlier verdict left in a row's folder: from here on it says nothing about what is judged."""
    for name in (store.NAME, "findings.json", "sample.png", "build.log"):
        (folder / name).unlink(missing_ok=True)


def _wheel_inside(image: Image, wheel: Wheel | None) -> Wheel | None:
    """Return the wheel if the image says that it was made of it, which `files.unmodified` then holds it to.

    An image that says otherwise, or nothing, may well hold another wheel that is as good: two compilations differ.
    """
    return wheel if wheel and image.labels.get(WHEEL_LABEL) == wheel.sha256 else None


def run_checks(row: Row, image: str, wheel: Wheel | None, around: Surroundings) -> list[Finding]:
    """Run the row's checks in the image and write `findings.json`; the first picture goes to `sample.png`."""
    around.view.phase(row.id, "checks")
    asked = checks.digest()
    findings = checks.run(
        around.engine,
        image,
        row,
        level=around.level,
        gpu=around.gpu,
        wheel=wheel,
        out=around.out,
        cancel=around.cancel,
        on_finding=lambda finding: around.view.detail(row.id, f"{finding.check}: {finding.status.value}"),
        on_waiting=lambda check: around.view.detail(row.id, f"{check}: waits for another row's turn on the GPU"),
        on_started=lambda check: around.view.detail(row.id, check, announce=False),
    )
    if checks.digest() != asked or asked != around.checks_digest:
        raise AssayError("the checks were edited during the run, so nobody knows which of them answered: run again")
    write_json(around.out / row.id / "findings.json", [finding.to_json() for finding in findings])
    return findings


def _recorded(row: Row, composed: Composed, wheel: Wheel | None, around: Surroundings) -> RowReport | None:
    """Return the row's report from its certificate, if that still holds."""
    try:
        certificate = store.read(around.out / row.id / store.NAME)
    except (FileNotFoundError, CertificateError):
        return None
    base_now = base.held(around.engine, row.base)
    inputs = CacheInputs(
        row=row_json(row),
        image_id=around.engine.image_id(image_tag(row)),
        dockerfile_digest=composed.digest,
        ingredients=row_record.ingredients(row, composed, wheel),
        base_digest=base_now.digest if base_now else None,
        checks_digest=around.checks_digest,
        releases_digest=around.releases.digest,
        level=around.level,
        required=checks.required(row, around.level),
        gpu=row_record.gpu_used(around.gpu),
        key=around.key.public if around.key else None,
    )
    valid, why = cache.still_valid(certificate, inputs)
    if not valid:
        around.view.note(f"{row.id}: judged anew: {why}")
        return None
    evidence = certificate.evidence
    seconds = (evidence.finished - evidence.started).total_seconds()
    check_seconds = sum(finding.seconds for finding in evidence.findings)
    return row_record.report(evidence, row, build_seconds=max(0.0, seconds - check_seconds), cached=True)


def _evidence(
    row: Row,
    around: Surroundings,
    verdict: Verdict,
    findings: list[Finding],
    image: ImageIdentity | None,
    dockerfile_digest: str | None,
    base_digest: str | None,
    ingredients: tuple[Ingredient, ...],
    started: datetime,
) -> RowEvidence:
    return RowEvidence(
        row=row_json(row),
        verdict=verdict,
        level=around.level,
        required=tuple(checks.required(row, around.level)),
        findings=tuple(findings),
        image=image,
        dockerfile_digest=dockerfile_digest,
        base_digest=base_digest,
        ingredients=ingredients,
        checks_digest=around.checks_digest,
        releases_digest=around.releases.digest,
        gpu=row_record.gpu_used(around.gpu),
        started=started,
        finished=datetime.now(timezone.utc),
        assay_version=__version__,
        builder=f"Docker Engine {around.engine.version}",
    )


def _record(evidence: RowEvidence, row: Row, around: Surroundings, *, build_seconds: float) -> RowReport:
    """Put a verdict on record, unless another run could still change it; a cancelled one proves nothing either way."""
    if around.cancel.is_set():
        return row_record.inconclusive(row, around.level, "interrupted")
    if evidence.verdict.verdict != "inconclusive" and evidence.verdict.complete:
        store.write(around.out / row.id / store.NAME, make_certificate(evidence, around.key))
    return row_record.report(evidence, row, build_seconds=build_seconds, cached=False)
