"""A certificate: the statement of a row's verdict in its envelope, signed or not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from assay.certificate import dsse
from assay.certificate import statement as statements
from assay.certificate.evidence import RowEvidence, canonical_json
from assay.errors import CertificateError
from assay.keys import PublicKey, SigningKey


@dataclass(frozen=True)
class Certificate:
    """A row's verdict on record; all that is known of it is read from the envelope."""

    envelope: dsse.Envelope

    @cached_property
    def statement(self) -> dict[str, Any]:
        """The in-toto statement. Raises CertificateError when the envelope holds another thing."""
        if self.envelope.payload_type != dsse.IN_TOTO_PAYLOAD:
            raise CertificateError(f"the envelope holds {self.envelope.payload_type!r}, no in-toto statement")
        try:
            raw = json.loads(self.envelope.payload)
        except (ValueError, RecursionError) as error:
            raise CertificateError(f"the envelope's payload is no JSON: {error}") from error
        return statements.check(raw)

    @cached_property
    def evidence(self) -> RowEvidence:
        """Everything that the verdict stands on."""
        return RowEvidence.from_json(self.statement["predicate"][statements.EVIDENCE])

    @property
    def certified(self) -> bool:
        """Whether the verdict is that the row works."""
        return bool(self.statement["predicate"]["result"] == "PASSED")

    @property
    def subjects(self) -> frozenset[str]:
        """The digests that the statement is about, as `sha256:<hex>`."""
        return frozenset(f"sha256:{one['digest']['sha256']}" for one in self.statement["subject"])

    @property
    def signed(self) -> bool:
        """Whether it carries any signature; whether that one is good, `verify` says."""
        return bool(self.envelope.signatures)

    @property
    def signature_text(self) -> str:
        """How to speak of the signature to people: `unsigned`, or the key that it claims."""
        if not self.signed:
            return "unsigned"
        names = [one.keyid[:16] for one in self.envelope.signatures if one.keyid]
        return f"signed by key {', '.join(names)}" if names else "signed without naming a key"

    def verify(self, *keys: PublicKey) -> PublicKey:
        """Return which of the keys signed it. Raises CertificateError when none did."""
        return dsse.verify(self.envelope, keys)


def make_certificate(evidence: RowEvidence, key: SigningKey | None = None) -> Certificate:
    """Put a verdict on record; without a key the record is unsigned.

    Raises CertificateError for an inconclusive verdict.
    """
    return _wrap(statements.test_result(evidence), key)


def about_manifest(certificate: Certificate, repository: str, digest: str, key: SigningKey | None) -> Certificate:
    """Return the certificate to publish: same evidence, about the registry's manifest too."""
    return _wrap(statements.about_manifest(certificate.statement, repository, digest), key)


def _wrap(statement: dict[str, Any], key: SigningKey | None) -> Certificate:
    certificate = Certificate(dsse.sign(canonical_json(statement), key))
    statements.check(certificate.statement)
    return certificate
