"""Certificates on disk: `certificate.json`, a DSSE envelope in one line.

Beside DSSE's own fields stands `integrity`, the sha256 of the rest (readers of DSSE ignore fields
that they do not know). It makes a damaged unsigned certificate visible. It is no protection against
someone who computes it anew: a signature is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from assay.certificate.dsse import Envelope
from assay.certificate.record import Certificate
from assay.errors import CertificateError
from assay.files import write_atomically

NAME = "certificate.json"


def to_bytes(certificate: Certificate) -> bytes:
    """Return the file's content."""
    envelope = certificate.envelope
    digest = hashlib.sha256(envelope.to_bytes()).hexdigest()
    fields = {**envelope.to_json(), "integrity": f"sha256:{digest}"}
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def write(path: Path, certificate: Certificate) -> None:
    """Write a certificate so that the file holds all of it or does not change."""
    write_atomically(path, to_bytes(certificate))


def read(path: Path) -> Certificate:
    """Read a certificate back, byte for byte as it was written.

    Its signature is not checked here: only the caller knows whom to trust.

    Raises FileNotFoundError when there is none; CertificateError when any byte changed.
    """
    data = path.read_bytes()
    try:
        certificate = Certificate(Envelope.from_bytes(data))
        unchanged = data == to_bytes(certificate)
        certificate.evidence  # noqa: B018  (reading it checks the statement and its parts)
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from error
    if not unchanged:
        raise CertificateError(
            f"{path}: the file changed since it was written; run the row again, or restore it from a copy"
        )
    return certificate
