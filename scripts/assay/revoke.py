"""Take certificates back: a signed statement beside them, which `assay verify` honours."""

from __future__ import annotations

from datetime import datetime, timezone

from assay.certificate import dsse
from assay.certificate.evidence import canonical_json
from assay.certificate.statement import statement, subject
from assay.errors import AssayError, CertificateError
from assay.keys import SigningKey
from assay.oci import Reference
from assay.publish import attachments
from assay.publish.attach import attach, read_back
from assay.publish.transaction import Transaction
from assay.registry import Registry
from assay.verify import REVOCATION, Trust, examine


def revoke(
    registry: Registry, reference: Reference, reason: str, key: SigningKey | None, now: datetime | None = None
) -> Reference:
    """Say of an image that none of its certificates by this key holds any longer; return the reference with its digest.

    Certificates stay where they are, as does the image: what was said once remains on record, with what is said now.
    Raises CertificateError when the registry has no such image, or when the revocation is not seen afterwards.
    """
    repository = reference.repository
    manifest = registry.manifest(repository, reference.target)
    if manifest is None or manifest.is_index:
        raise CertificateError(f"{registry.host} has no single image {reference}")
    pinned = reference.at(manifest.digest)
    trust = Trust(keys=(key.public,) if key else (), allow_unsigned=key is None)
    attested = examine(registry, pinned, trust).attested
    # A certificate that was made by a clock that is ahead of ours is revoked as well.
    made = [one.certificate.evidence.finished for one in attested]
    when = max([now or datetime.now(timezone.utc), *made]).isoformat()
    said = statement([subject(reference.name, manifest.digest)], REVOCATION, {"revoked": when, "reason": reason})
    envelope = dsse.sign(canonical_json(said), key)
    notes = {"org.opencontainers.image.created": when, "io.assay.signed": str(key is not None).lower()}
    artifact = attachments.envelope("revocation", attachments.REVOCATION_TYPE, envelope, manifest, notes)
    changes = Transaction(registry, repository)
    try:
        attach(registry, repository, manifest, [artifact], attestations=[envelope], signing=None, changes=changes)
        read_back(registry, repository, manifest, [artifact])
    except BaseException as error:
        left = changes.roll_back()
        if left and isinstance(error, AssayError):
            error.args = ("\n  ".join([str(error), *left]),)
        raise
    if not examine(registry, pinned, trust).revocations:
        raise CertificateError(f"the revocation of {pinned} was stored, and is not seen by `assay verify`")
    return pinned
