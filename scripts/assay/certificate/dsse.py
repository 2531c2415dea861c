"""DSSE v1: an envelope that carries a payload, its type, and signatures over both."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from assay.errors import CertificateError
from assay.keys import PublicKey, SigningKey

IN_TOTO_PAYLOAD = "application/vnd.in-toto+json"
ENVELOPE_MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of the type and the payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True)
class Signature:
    """One signature; keyid is a hint for finding the key, and is itself not signed."""

    keyid: str
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload with its type and any number of signatures; none means unsigned."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the envelope as JSON, in DSSE's own field names."""
        return {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [{"keyid": one.keyid, "sig": base64.b64encode(one.sig).decode()} for one in self.signatures],
        }

    def to_bytes(self) -> bytes:
        """Return the envelope's one byte form."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Read an envelope. Raises CertificateError when it is not one."""
        try:
            raw = json.loads(data)
            return cls(
                payload_type=_text(raw["payloadType"]),
                payload=_base64(raw["payload"]),
                signatures=tuple(
                    Signature(_text(one.get("keyid", "")), _base64(one["sig"])) for one in raw["signatures"]
                ),
            )
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise CertificateError(f"this is no DSSE envelope: {error!r}") from error


def sign(payload: bytes, key: SigningKey | None, payload_type: str = IN_TOTO_PAYLOAD) -> Envelope:
    """Wrap a payload; without a key the envelope holds no signature, and so says what it is."""
    if key is None:
        return Envelope(payload_type, payload)
    signature = Signature(key.public.keyid, key.sign(pae(payload_type, payload)))
    return Envelope(payload_type, payload, (signature,))


def verify(envelope: Envelope, keys: Collection[PublicKey]) -> PublicKey:
    """Return the first of the trusted keys that signed the envelope.

    Raises CertificateError when the envelope is unsigned or none of its signatures is by a trusted
    key. The `keyid` is only a hint: every signature is tried with every key.
    """
    if not envelope.signatures:
        raise CertificateError("it is unsigned")
    message = pae(envelope.payload_type, envelope.payload)
    for key in keys:
        if any(key.verify(message, one.sig) for one in envelope.signatures):
            return key
    raise CertificateError(
        f"no signature of it fits: it claims {_list(one.keyid for one in envelope.signatures)},"
        f" trusted is {_list(key.keyid for key in keys)};"
        " either it was changed or another key signed it"
    )


def _list(keyids: Sequence[str] | Any) -> str:
    return ", ".join(f"key {keyid[:16] or '(unnamed)'}" for keyid in keyids) or "no key"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _base64(text: Any) -> bytes:
    """Decode base64 in its one canonical form, so that no changed character goes unnoticed."""
    try:
        data = base64.b64decode(_text(text), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 is not canonical")
    return data
