"""What is known of a row when its verdict has fallen: everything that a certificate records."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from assay.errors import CertificateError
from assay.findings import Finding, Level, root_failures
from assay.matrix.row import Row
from assay.verdict import Verdict

_HEX = re.compile(r"[0-9a-f]{64}")


def canonical_json(value: Any) -> bytes:
    """Return a JSON value in this project's one form: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_hex(digest: str) -> str:
    """Return the 64 hex digits of `sha256:<hex>` or `<hex>`.

    Raises CertificateError for anything else: a certificate never holds a digest that names
    nothing.
    """
    digits = digest.removeprefix("sha256:")
    if not _HEX.fullmatch(digits):
        raise CertificateError(f"{digest!r} is not a sha256 digest (64 hex digits, optionally after 'sha256:')")
    return digits


def row_json(row: Row) -> dict[str, Any]:
    """Return a row as certificates and reports hold it: plain JSON types, every field present."""
    value: dict[str, Any] = json.loads(json.dumps(asdict(row)))
    return value


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """One thing that went into an image.

    source: where it came from, as a reader would look it up (`release`, `wheelhouse`, `compile`, a
        URL, an image reference). compiler: `nvcc 12.4.131` and the like, where it was compiled.
        sha256: of the file itself.
    """

    name: str
    version: str
    sha256: str | None = None
    source: str = ""
    compiler: str | None = None


@dataclass(frozen=True, kw_only=True)
class GpuUsed:
    """The one GPU that the `gpu` checks ran on, and the host's driver.

    access: how the container got it: `runtime`, `cdi` or `devices`; empty in certificates made before this was kept.
    """

    name: str
    uuid: str
    driver: str
    access: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageIdentity:
    """The image that was checked.

    id: what the engine calls it: the digest of its configuration, `sha256:<hex>`. size: bytes,
    unpacked. digest: of its registry manifest, where it already has one. tags: names it had in the
    engine when it was checked; publishing refuses when one of them names another image by then.
    """

    id: str
    size: int
    digest: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RowEvidence:
    """Everything that stands behind one row's verdict.

    row: the row as JSON (`row_json`). required: ids of the checks that the verdict asked for.
    image: None when the build failed: then there is none, and the certificate is about the
    Dockerfile. dockerfile_digest, checks_digest, releases_digest: sha256 of the composed Dockerfile
    with its context, of `docker/checks`, and of the releases table. base_digest: of the base image,
    where one is known. started, finished: aware times. builder: the engine with its version
    (`Docker Engine 20.10.24`).
    """

    row: dict[str, Any]
    verdict: Verdict
    level: Level
    required: tuple[str, ...]
    findings: tuple[Finding, ...]
    image: ImageIdentity | None
    dockerfile_digest: str | None
    base_digest: str | None
    ingredients: tuple[Ingredient, ...]
    checks_digest: str
    releases_digest: str
    gpu: GpuUsed | None
    started: datetime
    finished: datetime
    assay_version: str
    builder: str

    @property
    def row_id(self) -> str:
        """The row's id."""
        return str(self.row["id"])

    def to_json(self) -> dict[str, Any]:
        """Return the evidence as the certificate's predicate holds it.

        Raises CertificateError for times without a zone and for digests that are none.
        """
        for moment in (self.started, self.finished):
            if moment.tzinfo is None:
                raise CertificateError(f"the time {moment} of row {self.row_id} has no time zone")
        value = {
            "row": self.row,
            "verdict": {
                "verdict": self.verdict.verdict,
                "as_expected": self.verdict.as_expected,
                "why": self.verdict.why,
                "complete": self.verdict.complete,
            },
            "level": self.level.value,
            "required": sorted(self.required),
            "findings": [finding.to_json() for finding in self.findings],
            "image": asdict(self.image) if self.image else None,
            "dockerfile_digest": sha256_hex(self.dockerfile_digest) if self.dockerfile_digest else None,
            "base_digest": sha256_hex(self.base_digest) if self.base_digest else None,
            "ingredients": [asdict(ingredient) for ingredient in self.ingredients],
            "checks_digest": sha256_hex(self.checks_digest),
            "releases_digest": sha256_hex(self.releases_digest),
            "gpu": asdict(self.gpu) if self.gpu else None,
            "started": self.started.astimezone(timezone.utc).isoformat(),
            "finished": self.finished.astimezone(timezone.utc).isoformat(),
            "assay_version": self.assay_version,
            "builder": self.builder,
        }
        plain: dict[str, Any] = json.loads(canonical_json(value))
        return plain

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> RowEvidence:
        """Read evidence back. Raises CertificateError naming what is missing or wrong."""
        try:
            findings = tuple(Finding.from_json(one) for one in raw["findings"])
            image = raw["image"]
            gpu = raw["gpu"]
            return cls(
                row=dict(raw["row"]),
                verdict=Verdict(root_failures=root_failures(findings), **raw["verdict"]),
                level=Level(raw["level"]),
                required=tuple(raw["required"]),
                findings=findings,
                image=ImageIdentity(**{**image, "tags": tuple(image["tags"])}) if image else None,
                dockerfile_digest=raw["dockerfile_digest"],
                base_digest=raw["base_digest"],
                ingredients=tuple(Ingredient(**one) for one in raw["ingredients"]),
                checks_digest=raw["checks_digest"],
                releases_digest=raw["releases_digest"],
                gpu=GpuUsed(**gpu) if gpu else None,
                started=datetime.fromisoformat(raw["started"]),
                finished=datetime.fromisoformat(raw["finished"]),
                assay_version=raw["assay_version"],
                builder=raw["builder"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CertificateError(
                f"the certificate's evidence cannot be read ({error!r}): another version of assay"
                " wrote it, or it changed since; run the row again"
            ) from error


def ingredients_digest(ingredients: tuple[Ingredient, ...]) -> str:
    """Return the sha256 of a set of ingredients, whatever their order."""
    rows = sorted(canonical_json(asdict(ingredient)) for ingredient in ingredients)
    return hashlib.sha256(b"\n".join(rows)).hexdigest()
