"""Is an image in a registry certified, for what, and by whom? For those who pull it; no engine is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from assay import keyless, oci
from assay.certificate import Certificate
from assay.certificate import statement as statements
from assay.certificate.dsse import ENVELOPE_MEDIA_TYPE, Envelope
from assay.certificate.dsse import verify as verify_envelope
from assay.errors import CertificateError
from assay.findings import Level, gpus_not_judged
from assay.keys import PublicKey
from assay.oci import Manifest, Reference
from assay.publish.attachments import CERTIFICATE_TYPE, REVOCATION_TYPE
from assay.registry import Registry

REVOCATION = "urn:assay:revocation:v1"
LARGEST_ENVELOPE = 16 * 1024 * 1024
"""Bytes; a certificate with all its evidence is about 50 kB. Nothing larger is fetched from a stranger's registry."""
MOST_ENVELOPES = 200

Answer = Literal["certified", "not certified", "revoked", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whom to believe. allow_unsigned: believe the registry itself, for certificates without a signature."""

    keys: tuple[PublicKey, ...] = ()
    allow_unsigned: bool = False

    def check(self, envelope: Envelope) -> str:
        """Return who stands behind an envelope: a key's id, or `` for an unsigned one that may pass.

        Raises CertificateError when nobody does who is trusted.
        """
        if not envelope.signatures and self.allow_unsigned:
            return ""
        return verify_envelope(envelope, self.keys).keyid


@dataclass(frozen=True, kw_only=True)
class Attested:
    """A certificate for an image that is bound to it and believed. keyid: who signed; empty when nobody did."""

    certificate: Certificate
    keyid: str

    @property
    def by(self) -> str:
        """Who signed, for people."""
        return f"signed by key {self.keyid}" if self.keyid else "UNSIGNED"

    @property
    def summary(self) -> str:
        """What was certified, on what, when and by whom, in one line."""
        evidence = self.certificate.evidence
        gpu = f" on {evidence.gpu.name}, driver {evidence.gpu.driver}" if evidence.gpu else " on no GPU"
        others = gpus_not_judged(evidence.findings)
        gpu += f" (not judged: {', '.join(others)})" if others else ""
        when = f"{evidence.finished:%Y-%m-%d %H:%M} UTC"
        return f"row {evidence.row_id}, level {evidence.level.value}{gpu}, {when}, {self.by}"


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """A believed statement that certificates made before `when` no longer hold."""

    reason: str
    when: datetime
    keyid: str


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Everything that a registry says of one image, sorted by whether it is to be believed.

    unproven: certificates whose signature cannot be judged, because no key was given.
    problems: a line for each thing that claims to be a certificate or revocation and is not believed.
    """

    reference: Reference
    config_digest: str
    attested: tuple[Attested, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    unproven: tuple[Certificate, ...] = ()
    problems: tuple[str, ...] = field(default=())

    def standing(self, level: Level = Level.IMAGE) -> tuple[Attested, ...]:
        """Return the certificates that hold: at this level or above, not revoked, the newest first."""
        revoked = max((one.when for one in self.revocations), default=None)
        latest_no = max(
            (one.certificate.evidence.finished for one in self.attested if not one.certificate.certified), default=None
        )
        return tuple(
            one
            for one in sorted(self.attested, key=lambda one: one.certificate.evidence.finished, reverse=True)
            if one.certificate.certified
            and (level is Level.IMAGE or one.certificate.evidence.level is Level.GPU)
            and (revoked is None or one.certificate.evidence.finished > revoked)
            and (latest_no is None or one.certificate.evidence.finished > latest_no)
        )

    def answer(self, level: Level = Level.IMAGE) -> tuple[Answer, str]:
        """Say whether the image is certified at a level, and why."""
        holding = self.standing(level)
        if holding:
            return "certified", holding[0].summary
        if self.revocations:
            last = max(self.revocations, key=lambda one: one.when)
            return "revoked", f"revoked on {last.when:%Y-%m-%d %H:%M} UTC: {last.reason}"
        if self.attested:
            found = ", ".join(sorted({_brief(one.certificate) for one in self.attested}))
            return "not certified", f"it has {found}, asked is level {level.value}"
        if self.unproven:
            one = self.unproven[0]
            cosign = f", or, {keyless.how_to_check(str(self.reference))}" if keyless.unnamed(one.envelope) else ""
            return "unknown", f"{_brief(one)}, {one.signature_text}: give --key to check it{cosign}"
        if self.problems:
            return "not certified", self.problems[0]
        return "not certified", "nothing is attached to it that says so"


def examine(registry: Registry, reference: Reference, trust: Trust) -> Examination:
    """Look up an image and what is attached to it, and judge each thing.

    A certificate counts only when someone trusted signed it, its subject is this manifest, and its evidence is about
    the configuration that this manifest names.

    Raises CertificateError when the registry has no such image or it is no single image, RegistryError when it
    cannot be asked.
    """
    manifest = registry.manifest(reference.repository, reference.target)
    if manifest is None or manifest.is_nothing:
        raise CertificateError(f"{registry.host} has no image {reference}")
    if manifest.is_index:
        raise CertificateError(f"{reference} is a list of images for several platforms; name one of them by digest")
    pinned = reference.at(manifest.digest)
    attested: list[Attested] = []
    revocations: list[Revocation] = []
    unproven: list[Certificate] = []
    problems: list[str] = []
    for envelope in _envelopes(registry, reference.repository, manifest):
        try:
            kind = json.loads(envelope.payload).get("predicateType")
        except (ValueError, AttributeError, RecursionError):
            continue
        try:
            if kind == statements.TEST_RESULT:
                certificate = _bound(Certificate(envelope), manifest)
                if certificate.signed and not trust.keys:
                    unproven.append(certificate)
                else:
                    attested.append(Attested(certificate=certificate, keyid=trust.check(envelope)))
            elif kind == REVOCATION:
                revocations.append(_revocation(envelope, manifest, trust))
        except CertificateError as error:
            problems.append(_disbelief(kind, envelope, error, pinned))
    return Examination(
        reference=pinned,
        config_digest=manifest.config_digest,
        attested=tuple(attested),
        revocations=tuple(revocations),
        unproven=tuple(unproven),
        problems=tuple(problems),
    )


def _disbelief(kind: str, envelope: Envelope, error: CertificateError, image: Reference) -> str:
    """Return why a certificate or revocation does not count, in one line, and who can say more."""
    if kind == REVOCATION:
        return f"a revocation is not believed: {error}"
    if not keyless.unnamed(envelope):
        return f"a certificate is not believed: {error}"
    if envelope.signatures:
        return f"a certificate is signed, but by no key that assay could know; {keyless.how_to_check(str(image))}"
    return (
        f"a certificate is not believed: {error}; --allow-unsigned takes the registry's word for it; "
        f"{keyless.how_to_check(str(image))}"
    )


def _envelopes(registry: Registry, repository: str, manifest: Manifest) -> Iterator[Envelope]:
    """Yield every DSSE envelope attached to a manifest, each once, from its referrers and from cosign's image."""
    seen: set[str] = set()
    for digest in _layers_of_interest(registry, repository, manifest):
        if digest in seen:
            continue
        seen.add(digest)
        if len(seen) > MOST_ENVELOPES:
            raise CertificateError(f"more than {MOST_ENVELOPES} statements are attached to {manifest.digest}")
        try:
            yield Envelope.from_bytes(registry.blob(repository, digest))
        except CertificateError:
            continue  # something of another kind under this media type


def _layers_of_interest(registry: Registry, repository: str, manifest: Manifest) -> Iterator[str]:
    interesting = (CERTIFICATE_TYPE, REVOCATION_TYPE)
    holders = [
        registry.manifest(repository, str(one["digest"]))
        for one in registry.referrers(repository, manifest.digest)
        if one.get("artifactType") in interesting
    ]
    holders.append(registry.manifest(repository, f"{oci.referrers_tag(manifest.digest)}.att"))
    for holder in holders:
        for layer in holder.json.get("layers", []) if holder else []:
            if layer.get("mediaType") == ENVELOPE_MEDIA_TYPE and layer.get("size", 0) <= LARGEST_ENVELOPE:
                yield str(layer["digest"])


def _bound(certificate: Certificate, manifest: Manifest) -> Certificate:
    """Return the certificate if it is about this manifest and the configuration in it."""
    if manifest.digest not in certificate.subjects:
        raise CertificateError(f"it is about {_list(certificate.subjects)}, not about {manifest.digest}")
    image = certificate.evidence.image
    # An engine with containerd's image store calls an image by its manifest, others by its configuration.
    if image is None or image.id not in (manifest.config_digest, manifest.digest):
        raise CertificateError(
            f"its evidence is about the image {image.id if image else '(none)'}, this one is {manifest.config_digest}"
        )
    return certificate


def _revocation(envelope: Envelope, manifest: Manifest, trust: Trust) -> Revocation:
    """Read a revocation. Without a key, a signed one is believed too: doubt counts against the image."""
    keyid = trust.check(envelope) if trust.keys or not envelope.signatures else envelope.signatures[0].keyid
    try:
        raw: dict[str, Any] = json.loads(envelope.payload)
        digests = {f"sha256:{one['digest']['sha256']}" for one in raw["subject"]}
        when = datetime.fromisoformat(raw["predicate"]["revoked"])
        reason = str(raw["predicate"]["reason"])
    except (ValueError, KeyError, TypeError) as error:
        raise CertificateError(f"it cannot be read: {error!r}") from error
    if manifest.digest not in digests:
        raise CertificateError(f"it is about {_list(digests)}, not about {manifest.digest}")
    if when.tzinfo is None:
        raise CertificateError("its time has no zone")
    return Revocation(reason=reason, when=when, keyid=keyid)


def _brief(certificate: Certificate) -> str:
    result = "a certificate" if certificate.certified else "a rejection"
    return f"{result} of level {certificate.evidence.level.value}"


def _list(digests: frozenset[str] | set[str]) -> str:
    return " and ".join(sorted(digests)) or "nothing"
