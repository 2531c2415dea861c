"""DSSE envelopes and keys: the published test vector, both kinds of key, openssl as a second opinion."""

from __future__ import annotations

import base64
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from assay import keys
from assay.certificate import dsse
from assay.certificate.dsse import Envelope
from assay.errors import CertificateError, UsageError
from assay.keys import SigningKey

PAIRS = [keys.generate("ecdsa-p256"), keys.generate("ed25519")]
IDS = ["ecdsa-p256", "ed25519"]


def test_the_encoding_is_that_of_the_specification() -> None:
    # protocol.md of secure-systems-lab/dsse, "Test Vectors"
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("key", PAIRS, ids=IDS)
@given(payload=st.binary(max_size=200))
def test_a_signature_holds_for_its_payload_alone(key: SigningKey, payload: bytes) -> None:
    envelope = dsse.sign(payload, key)
    assert dsse.verify(envelope, [key.public]) == key.public
    for changed in (
        replace(envelope, payload=payload + b"x"),
        replace(envelope, payload_type="text/plain"),
        replace(envelope, signatures=()),
    ):
        with pytest.raises(CertificateError):
            dsse.verify(changed, [key.public])


@pytest.mark.parametrize("key", PAIRS, ids=IDS)
def test_another_key_is_not_believed_whatever_the_keyid_claims(key: SigningKey) -> None:
    stranger = keys.generate()
    envelope = dsse.sign(b"{}", stranger)
    lying = replace(envelope, signatures=(replace(envelope.signatures[0], keyid=key.public.keyid),))
    with pytest.raises(CertificateError, match="no signature of it fits"):
        dsse.verify(lying, [key.public])
    assert dsse.verify(lying, [key.public, stranger.public]) == stranger.public


@pytest.mark.parametrize("key", PAIRS, ids=IDS)
def test_the_same_message_gives_the_same_signature(key: SigningKey) -> None:
    assert key.sign(b"message") == key.sign(b"message")


@given(st.binary(max_size=100), st.text(max_size=20))
def test_envelopes_survive_their_json(payload: bytes, payload_type: str) -> None:
    envelope = dsse.sign(payload, PAIRS[0], payload_type)
    assert Envelope.from_bytes(envelope.to_bytes()) == envelope


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"payloadType": "t", "payload": "e30="}',
        b'{"payloadType": "t", "payload": "e30", "signatures": []}',
        b'{"payloadType": "t", "payload": "e31=", "signatures": []}',
        b'{"payloadType": "t", "payload": "e30=\\n", "signatures": []}',
        b'{"payloadType": 1, "payload": "e30=", "signatures": []}',
        b'{"payloadType": "t", "payload": "e30=", "signatures": ["x"]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(CertificateError):
        Envelope.from_bytes(data)


def test_a_pair_on_disk_is_read_back_and_the_private_half_is_private(tmp_path: Path) -> None:
    private, public = keys.write_pair(PAIRS[0], tmp_path / "keys")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert keys.load_signing_key(private).public == keys.load_public_key(public) == PAIRS[0].public  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="exists"):
        keys.write_pair(keys.generate(), tmp_path / "keys")


def test_keys_come_from_the_environment_where_no_file_is_named() -> None:
    key = PAIRS[1]
    private = keys.load_signing_key(None, {keys.KEY_VARIABLE: key.pem().decode()})
    assert private
    assert private.public == key.public
    assert keys.load_public_key(None, {keys.PUBLIC_KEY_VARIABLE: key.public.pem.decode()}) == key.public
    assert keys.load_signing_key(None, {}) is None
    assert keys.load_signing_key(None, {keys.KEY_VARIABLE: ""}) is None


def test_an_encrypted_key_asks_for_its_password() -> None:
    pem = PAIRS[0].pem(b"secret").decode()
    opened = keys.load_signing_key(None, {keys.KEY_VARIABLE: pem, keys.PASSWORD_VARIABLE: "secret"})
    assert opened
    assert opened.public == PAIRS[0].public
    with pytest.raises(UsageError, match=keys.PASSWORD_VARIABLE):
        keys.load_signing_key(None, {keys.KEY_VARIABLE: pem})
    with pytest.raises(UsageError):
        keys.load_signing_key(None, {keys.KEY_VARIABLE: pem, keys.PASSWORD_VARIABLE: "wrong"})


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_other_kinds_of_key_are_refused(tmp_path: Path) -> None:
    for pem in (_pem(rsa.generate_private_key(65537, 2048)), _pem(ec.generate_private_key(ec.SECP384R1()))):
        with pytest.raises(UsageError, match="neither ECDSA P-256 nor ed25519"):
            keys.parse_private(pem, "a test")
    with pytest.raises(UsageError, match="looks like a private key"):
        keys.parse_public(PAIRS[0].pem(), "a test")
    with pytest.raises(UsageError, match="assay key"):
        keys.parse_private(b"nonsense", "a test")
    with pytest.raises(UsageError, match="cannot be read"):
        keys.load_signing_key(tmp_path / "missing.key")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_agrees(tmp_path: Path) -> None:
    envelope = dsse.sign(b'{"a":1}', PAIRS[0])
    (tmp_path / "key.pub").write_bytes(PAIRS[0].public.pem)
    (tmp_path / "message").write_bytes(dsse.pae(envelope.payload_type, envelope.payload))
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope.to_json()["signatures"][0]["sig"]))
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pub", "-signature", "signature", "message"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "Verified OK\n", done.stderr
