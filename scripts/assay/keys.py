"""Signing keys: ECDSA P-256 or ed25519, as PEM, so that cosign and openssl read them too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from assay.errors import UsageError

Algorithm = Literal["ecdsa-p256", "ed25519"]

KEY_VARIABLE = "ASSAY_KEY"
"""Environment variable that may hold the private key's PEM text (a secret of a CI system)."""
PASSWORD_VARIABLE = "ASSAY_KEY_PASSWORD"  # noqa: S105  (the variable's name, not a password)
PUBLIC_KEY_VARIABLE = "ASSAY_PUBLIC_KEY"
"""Environment variable that may hold the public key's PEM text."""


@dataclass(frozen=True)
class PublicKey:
    """A key that checks signatures."""

    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

    @property
    def keyid(self) -> str:
        """The sha256 of the key's DER form, in hex: the same for everybody who has the key."""
        der = self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    @property
    def pem(self) -> bytes:
        """The key as PEM (SubjectPublicKeyInfo)."""
        return self.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether the signature over the message was made with this key's private half."""
        try:
            if isinstance(self.key, ed25519.Ed25519PublicKey):
                self.key.verify(signature, message)
            else:
                self.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A key that makes signatures."""

    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        """The half that everybody may have."""
        return PublicKey(self.key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the signature: ASN.1 DER over SHA-256 for ECDSA, 64 bytes for ed25519.

        The same message gives the same signature (RFC 6979 for ECDSA): publishing the same thing twice changes nothing.
        """
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(message)
        return self.key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    def pem(self, password: bytes | None = None) -> bytes:
        """Return the key as PEM (PKCS #8), encrypted when a password is given."""
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def generate(algorithm: Algorithm = "ecdsa-p256") -> SigningKey:
    """Make a new key."""
    if algorithm == "ed25519":
        return SigningKey(ed25519.Ed25519PrivateKey.generate())
    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


def write_pair(key: SigningKey, folder: Path, password: bytes | None = None) -> tuple[Path, Path]:
    """Write `assay.key` (readable by its owner alone) and `assay.pub`; return both paths.

    Raises UsageError when either exists (a key that signed published images must not be lost to a second run) or
    cannot be written.
    """
    private, public = folder / "assay.key", folder / "assay.pub"
    try:
        for path in (private, public):
            if path.exists():
                raise UsageError(f"{path} exists; move it away first, or name another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.pem(password))
        public.write_bytes(key.public.pem)
    except OSError as error:
        raise UsageError(
            f"the keys cannot be written into {folder}: {error.strerror}; name another folder with --out"
        ) from error
    return private, public


def parse_private(pem: bytes, where: str, password: bytes | None = None) -> SigningKey:
    """Read a private key from PEM. `where` names its origin in messages.

    Raises UsageError when it is no such key, is of another kind, or the password does not fit: whatever was asked for,
    nothing was found out about it.
    """
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError as error:
        raise UsageError(
            f"the private key in {where} needs a password in {PASSWORD_VARIABLE}, or has none and got one: {error}"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if password and b"ENCRYPTED" in pem:
            raise UsageError(
                f"the private key in {where} does not open with the password in {PASSWORD_VARIABLE}, or is damaged: "
                "set the one that it was encrypted with"
            ) from error
        raise UsageError(
            f"{where} holds no PEM private key that can be read ({error}); `assay key --out DIR` makes one"
        ) from error
    if isinstance(key, ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return SigningKey(key)
    raise UsageError(f"the private key in {where} is neither ECDSA P-256 nor ed25519")


def parse_public(pem: bytes, where: str) -> PublicKey:
    """Read a public key from PEM. Raises UsageError when it is no such key."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = " (it looks like a private key: give its .pub)" if b"PRIVATE" in pem else ""
        raise UsageError(f"{where} holds no PEM public key that can be read{hint}: {error}") from error
    if isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return PublicKey(key)
    raise UsageError(f"the public key in {where} is neither ECDSA P-256 nor ed25519")


def _pem_of(path: Path | None, variable: str, environment: Mapping[str, str]) -> tuple[bytes, str] | None:
    if path is not None:
        try:
            return path.read_bytes(), str(path)
        except OSError as error:
            raise UsageError(f"the key file {path} cannot be read: {error.strerror}") from error
    text = environment.get(variable, "")
    return (text.encode(), f"the environment variable {variable}") if text.strip() else None


def load_signing_key(path: Path | None, environment: Mapping[str, str] = os.environ) -> SigningKey | None:
    """Return the private key of a file, else of ASSAY_KEY, else None."""
    found = _pem_of(path, KEY_VARIABLE, environment)
    if found is None:
        return None
    password = environment.get(PASSWORD_VARIABLE)
    return parse_private(*found, password=password.encode() if password else None)


def load_public_key(path: Path | None, environment: Mapping[str, str] = os.environ) -> PublicKey | None:
    """Return the public key of a file, else of ASSAY_PUBLIC_KEY, else None."""
    found = _pem_of(path, PUBLIC_KEY_VARIABLE, environment)
    return parse_public(*found) if found else None
