"""Is a recorded verdict still the answer? Then the row need not be built and checked again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from assay.certificate.evidence import (
    GpuUsed,
    Ingredient,
    RowEvidence,
    ingredients_digest,
    sha256_hex,
)
from assay.certificate.record import Certificate
from assay.errors import CertificateError
from assay.findings import Level
from assay.keys import PublicKey

NOT_EVIDENCE = frozenset({"what", "runner", "tags", "required_level"})
"""Fields of a row that neither its image nor its verdict depends on."""


@dataclass(frozen=True, kw_only=True)
class CacheInputs:
    """What a row would be built from and checked by, were it run now.

    row: as JSON (`row_json`). image_id: the image that the engine holds for the row now, None where
        it holds none; for a row whose build failed this does not matter. ingredients: None where
        they cannot be told before building (then the Dockerfile's digest, which names them, has to
        do). required: ids of the checks for `level`.
    base_digest: of the base image that the engine holds now; None where it holds none or nobody looked.
    gpu: the GPU that level `gpu` would use. key: the key that certificates must be signed by, where
    one is set.
    """

    row: dict[str, Any]
    image_id: str | None
    dockerfile_digest: str
    ingredients: tuple[Ingredient, ...] | None
    checks_digest: str
    releases_digest: str
    level: Level
    required: tuple[str, ...]
    base_digest: str | None = None
    gpu: GpuUsed | None = None
    key: PublicKey | None = None


def still_valid(certificate: Certificate, current: CacheInputs) -> tuple[bool, str]:
    """Say whether the certificate answers for the current inputs, and why, in one line.

    An unreadable or wrongly signed certificate is not an error here, only not valid: the row runs
    again.
    """
    try:
        evidence = certificate.evidence
        if current.key is not None:
            certificate.verify(current.key)
    except CertificateError as error:
        return False, f"the certificate cannot be relied on: {error}"
    for question in _QUESTIONS:
        why = question(evidence, current)
        if why:
            return False, why
    result = "certified" if certificate.certified else "rejected"
    return (
        True,
        f"{result} at level {evidence.level.value} on {evidence.finished:%Y-%m-%d %H:%M} UTC, nothing changed since",
    )


def _complete(old: RowEvidence, now: CacheInputs) -> str:
    return "" if old.verdict.complete else "a check had not answered then"


def _expected(old: RowEvidence, now: CacheInputs) -> str:
    """Ask again after a surprise: a disk in trouble, or other work on the GPU, can be behind it."""
    surprising = not old.verdict.as_expected
    return "it did not come out as expected, and the machine may have had its part in that" if surprising else ""


def _row(old: RowEvidence, now: CacheInputs) -> str:
    fields = sorted((old.row.keys() | now.row.keys()) - NOT_EVIDENCE)
    changed = [name for name in fields if old.row.get(name) != now.row.get(name)]
    return f"the row's {', '.join(changed)} changed" if changed else ""


def _dockerfile(old: RowEvidence, now: CacheInputs) -> str:
    return (
        ""
        if old.dockerfile_digest and sha256_hex(old.dockerfile_digest) == sha256_hex(now.dockerfile_digest)
        else "the Dockerfile or a file in it changed"
    )


def _ingredients(old: RowEvidence, now: CacheInputs) -> str:
    if now.ingredients is None or ingredients_digest(old.ingredients) == ingredients_digest(now.ingredients):
        return ""
    before = {one.name: one for one in old.ingredients}
    after = {one.name: one for one in now.ingredients}
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return f"the ingredients changed: {', '.join(changed) or 'one is listed twice'}"


def _image(old: RowEvidence, now: CacheInputs) -> str:
    if old.image is None:
        return ""
    if now.image_id is None:
        return "the image is no longer in the engine"
    if sha256_hex(old.image.id) != sha256_hex(now.image_id):
        return f"the image changed: checked was {old.image.id[:19]}, the engine now holds {now.image_id[:19]}"
    return ""


def _base(old: RowEvidence, now: CacheInputs) -> str:
    """Hold the base against the one built on; an image that was made outlives its base, a failed build does not."""
    if now.base_digest is None:
        return "" if old.image else "the base image on which the build failed is no longer in the engine"
    if old.base_digest and sha256_hex(old.base_digest) == sha256_hex(now.base_digest):
        return ""
    return "the base image changed"


def _checks(old: RowEvidence, now: CacheInputs) -> str:
    return "" if old.checks_digest == sha256_hex(now.checks_digest) else "the checks changed"


def _releases(old: RowEvidence, now: CacheInputs) -> str:
    return "" if old.releases_digest == sha256_hex(now.releases_digest) else "the releases table changed"


def _level(old: RowEvidence, now: CacheInputs) -> str:
    """A certificate of level gpu answers level image too; a rejection may rest on the GPU."""
    if old.level is now.level:
        return ""
    if now.level is Level.IMAGE and old.verdict.verdict == "certified":
        return ""
    return f"it was checked at level {old.level.value}, now asked is {now.level.value}"


def _required(old: RowEvidence, now: CacheInputs) -> str:
    missing = sorted(set(now.required) - set(old.required))
    return f"these checks are required now and were not then: {', '.join(missing)}" if missing else ""


def _gpu(old: RowEvidence, now: CacheInputs) -> str:
    if now.level is not Level.GPU or old.image is None or old.gpu == now.gpu:
        return ""
    return f"it was checked on {_gpu_name(old.gpu)}, this machine has {_gpu_name(now.gpu)}"


def _gpu_name(gpu: GpuUsed | None) -> str:
    return f"{gpu.name} ({gpu.uuid}), driver {gpu.driver}, by {gpu.access or 'an unknown way'}" if gpu else "no GPU"


_QUESTIONS: tuple[Callable[[RowEvidence, CacheInputs], str], ...] = (
    _complete,
    _expected,
    _row,
    _dockerfile,
    _ingredients,
    _image,
    _base,
    _checks,
    _releases,
    _level,
    _required,
    _gpu,
)
