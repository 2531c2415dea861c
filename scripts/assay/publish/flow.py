"""Publishing in order: gate, inventory, tags, push, attachments, reading back, and the real tags last of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay import inventory, provenance, sbom, tags
from assay.certificate import Certificate, dsse
from assay.certificate.evidence import canonical_json
from assay.certificate.record import about_manifest
from assay.certificate.statement import statement, subject
from assay.engine import Engine
from assay.errors import AssayError, CertificateError, Refused, RegistryError
from assay.files import write_atomically, write_json
from assay.keys import SigningKey
from assay.oci import Manifest, Reference
from assay.publish import attachments
from assay.publish.attach import attach, read_back
from assay.publish.gate import Candidate
from assay.publish.push import candidate_tag, push
from assay.publish.transaction import Transaction
from assay.registry import Registry
from assay.verify import Trust, examine


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to publish.

    target: host and repository. prefix: first part of full tags. key: None publishes unsigned.
    backwards: let a moving tag go to an image that was certified before the one that it names.
    """

    target: Reference
    prefix: str
    key: SigningKey | None
    out: Path
    backwards: bool = False

    @property
    def trust(self) -> Trust:
        """Whom this publisher believes: itself."""
        return Trust(keys=(self.key.public,) if self.key else (), allow_unsigned=self.key is None)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A row with its tags and its bill of materials.

    present: the manifest under its full tag, where the image is published already.
    """

    candidate: Candidate
    full_tag: str
    moving: tuple[str, ...]
    sbom: bytes
    present: Manifest | None

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags, the full one first."""
        return (self.full_tag, *self.moving)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What stands in the registry now."""

    row: str
    reference: Reference
    tags: tuple[str, ...]
    signed: bool


def publish(
    candidates: Sequence[Candidate],
    *,
    engine: Engine,
    registry: Registry,
    settings: Settings,
    on_line: Callable[[str], None],
) -> list[Published]:
    """Publish rows that passed the gate: all of them, or nothing.

    Raises Refused where a tag may not be set as asked, RegistryError where the registry does not play along; either way
    every tag is as it was before, as far as the registry lets us, and the message says where it does not.
    """
    repository = settings.target.repository
    plans = [_plan(one, engine, registry, settings, on_line) for one in candidates]
    _distinct(plans)
    changes = Transaction(registry, repository)
    throw_away: list[str] = []
    try:
        published = []
        for plan in plans:
            throw_away.append(candidate_tag(plan.candidate.image_id))
            manifest = plan.present or _push(plan, engine, registry, settings, on_line)
            _attach(plan, manifest, registry, settings, changes, on_line)
            published.append((plan, manifest))
        for plan, manifest in published:
            for tag in plan.tags:
                _tag_allowed(plan, tag, manifest, registry, settings)
                changes.set_tag(tag, manifest)
    except BaseException as error:
        left = changes.roll_back() + _remove(throw_away, registry, repository)
        if left and isinstance(error, AssayError):
            advice = "publish again, or `assay prune --remove`, to clear that"
            error.args = ("\n  ".join([str(error), *left, advice]),)
        raise
    for line in _remove(throw_away, registry, repository):
        on_line(line)
    return [_record(plan, manifest, settings, on_line) for plan, manifest in published]


def _plan(
    candidate: Candidate, engine: Engine, registry: Registry, settings: Settings, on_line: Callable[[str], None]
) -> Plan:
    """Read the image's inventory and see which tags it may have, before anything is sent."""
    evidence = candidate.evidence
    on_line(f"{candidate.row.id}: reading what is in {candidate.image_id[:19]}")
    found = inventory.collect(engine, candidate.image_id)
    if candidate.row.flash_attn.source == "none" and found.python_package("flash-attn"):
        raise Refused(
            f"{candidate.row.id}: its image holds flash-attn, which the row leaves out and no check asked for: give the"
            " row a `flash-attn`, and certify it again"
        )
    full_tag = tags.full_tag(found, tags.prefix_of(candidate.row, settings.prefix))
    bill = sbom.make(
        found,
        name=candidate.row.id,
        image_id=candidate.image_id,
        ingredients=evidence.ingredients,
        made=evidence.finished,
        assay_version=evidence.assay_version,
    )
    present = registry.tagged(settings.target.repository, full_tag)
    if present is not None and not _is_image(present, candidate.image_id):
        raise Refused(
            f"{candidate.row.id}: {settings.target.name}:{full_tag} is published as {present.digest[:19]}, another"
            f" image than the certified {candidate.image_id[:19]}; a full tag never moves: set another `prefix`"
        )
    plan = Plan(candidate=candidate, full_tag=full_tag, moving=candidate.row.tags, sbom=bill, present=present)
    for tag in plan.moving:
        _moving_allowed(plan, tag, registry, settings)
    return plan


def _distinct(plans: Sequence[Plan]) -> None:
    """Raise Refused where two rows would get one tag."""
    owner: dict[str, Plan] = {}
    for plan in plans:
        for tag in plan.tags:
            other = owner.setdefault(tag, plan)
            if other.candidate.image_id != plan.candidate.image_id:
                raise Refused(f"rows {other.candidate.row.id} and {plan.candidate.row.id} both ask for the tag {tag}")


def _is_image(manifest: Manifest, image_id: str) -> bool:
    """Say whether a manifest is that of the engine's image: by its configuration, or (containerd) by itself."""
    return image_id == manifest.digest or (not manifest.is_index and image_id == manifest.config_digest)


def _push(
    plan: Plan, engine: Engine, registry: Registry, settings: Settings, on_line: Callable[[str], None]
) -> Manifest:
    """Push the image under its throw-away tag; return its manifest as the registry holds it."""
    image_id = plan.candidate.image_id
    target = Reference(settings.target.host, settings.target.repository, candidate_tag(image_id))
    on_line(f"{plan.candidate.row.id}: pushing {image_id[:19]} to {target.name}")
    digest = push(engine, image_id, target, on_line)
    manifest = registry.manifest(target.repository, digest)
    if manifest is None:
        raise RegistryError(f"{target.name} does not hold {digest}, which the engine says it pushed")
    if manifest.is_index:
        raise Refused(
            f"the engine pushed {digest[:19]}, a list of images: its containerd image store does so where builds leave"
            " attestations; switch those off (--provenance=false) or use its classic store"
        )
    if not _is_image(manifest, image_id):
        raise Refused(f"what arrived at {target.name} as {digest[:19]} is not the certified image {image_id[:19]}")
    return manifest


def _attach(
    plan: Plan,
    manifest: Manifest,
    registry: Registry,
    settings: Settings,
    changes: Transaction,
    on_line: Callable[[str], None],
) -> None:
    """Attach certificate, SBOM, provenance and signature; read everything back; have a stranger's eye look at it."""
    key, name = settings.key, settings.target.name
    on_line(
        f"{plan.candidate.row.id}: attaching certificate, SBOM, provenance{' and signature' if key else ', unsigned'}"
    )
    evidence = plan.candidate.evidence
    subjects = [subject(name, manifest.digest)]
    certificate = about_manifest(plan.candidate.certificate, name, manifest.digest, key)
    source = dsse.sign(canonical_json(provenance.make(evidence, subjects)), key)
    bill = statement(subjects, attachments.SBOM_PREDICATE, json.loads(plan.sbom))
    bill_signed = dsse.sign(canonical_json(bill), key) if key else None
    notes = {
        "org.opencontainers.image.created": evidence.finished.isoformat(),
        "io.assay.row": plan.candidate.row.id,
        "io.assay.level": evidence.level.value,
        "io.assay.signed": str(key is not None).lower(),
    }
    certified = attachments.envelope("certificate", attachments.CERTIFICATE_TYPE, certificate.envelope, manifest, notes)
    artifacts = [
        certified,
        attachments.envelope("provenance", attachments.PROVENANCE_TYPE, source, manifest, notes),
        attachments.sbom(plan.sbom, bill_signed, manifest, notes),
    ]
    signing = attachments.simple_signing(name, manifest.digest, key) if key else None
    if signing:
        artifacts.append(attachments.signature(signing, manifest, notes))
    attach(
        registry,
        settings.target.repository,
        manifest,
        artifacts,
        attestations=[certificate.envelope, source, *([bill_signed] if bill_signed else [])],
        signing=signing,
        changes=changes,
    )
    read_back(registry, settings.target.repository, manifest, artifacts)
    _seen_as_certified(certificate, manifest, registry, settings)


def _seen_as_certified(certificate: Certificate, manifest: Manifest, registry: Registry, settings: Settings) -> None:
    """Raise CertificateError unless whoever verifies the pushed image finds this very certificate."""
    seen = examine(registry, settings.target.at(manifest.digest), settings.trust)
    if not any(one.certificate == certificate for one in seen.standing(certificate.evidence.level)):
        _, why = seen.answer(certificate.evidence.level)
        raise CertificateError(f"{settings.target.at(manifest.digest)} would not pass for certified: {why}")


def _tag_allowed(plan: Plan, tag: str, manifest: Manifest, registry: Registry, settings: Settings) -> None:
    """Ask again right before a tag is set: someone else may have published meanwhile."""
    if tag != plan.full_tag:
        _moving_allowed(plan, tag, registry, settings)
        return
    now = registry.tagged(settings.target.repository, tag)
    if now is not None and now.digest != manifest.digest:
        raise Refused(
            f"{settings.target.name}:{tag} was published as {now.digest[:19]} meanwhile; a full tag never moves"
        )


def _moving_allowed(plan: Plan, tag: str, registry: Registry, settings: Settings) -> None:
    """Raise Refused where a moving tag would go back in time.

    A tag that names nothing certified, or something revoked, may go anywhere.
    """
    now = registry.tagged(settings.target.repository, tag)
    if settings.backwards or now is None or now.is_index or _is_image(now, plan.candidate.image_id):
        return
    standing = examine(registry, settings.target.at(now.digest), settings.trust).standing()
    ours = plan.candidate.evidence.finished
    if standing and standing[0].certificate.evidence.finished >= ours:
        theirs = standing[0].certificate.evidence.finished
        raise Refused(
            f"{plan.candidate.row.id}: {settings.target.name}:{tag} names an image certified on"
            f" {theirs:%Y-%m-%d %H:%M:%S} UTC, this one was on {ours:%Y-%m-%d %H:%M:%S};"
            " --backwards moves it all the same"
        )


def _remove(throw_away: Sequence[str], registry: Registry, repository: str) -> list[str]:
    """Take the candidates away; return a line for each that stays."""
    left = []
    for tag in throw_away:
        try:
            if registry.tagged(repository, tag) is not None and not registry.remove_tag(repository, tag):
                left.append(f"{registry.host} allows no deleting: the throw-away tag {tag} is left, naming nothing")
        except AssayError as error:
            left.append(f"the throw-away tag {tag} could not be taken away: {error}")
    return left


def _record(plan: Plan, manifest: Manifest, settings: Settings, on_line: Callable[[str], None]) -> Published:
    """Write down what was published, for people and for a workflow's next step."""
    folder = settings.out / plan.candidate.row.id
    pinned = settings.target.at(manifest.digest)
    write_atomically(folder / "sbom.cdx.json", plan.sbom)
    # What `cosign attest --predicate` signs where a workflow signs without a key.
    write_json(folder / "predicate.json", plan.candidate.certificate.statement["predicate"])
    write_json(
        folder / "publication.json",
        {
            "row": plan.candidate.row.id,
            "reference": str(pinned),
            "digest": manifest.digest,
            "image": plan.candidate.image_id,
            "tags": list(plan.tags),
            "signed_by": settings.key.public.keyid if settings.key else None,
        },
    )
    signed = f"signed by key {settings.key.public.keyid[:16]}" if settings.key else "UNSIGNED"
    on_line(f"{plan.candidate.row.id}: published {pinned}, {signed}, as {', '.join(plan.tags)}")
    return Published(row=plan.candidate.row.id, reference=pinned, tags=plan.tags, signed=settings.key is not None)
