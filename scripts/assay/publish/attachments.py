"""What is attached to a published image, as manifests and blobs: pure data, made before anything is sent.

Each thing is an artifact that refers to the image (found by `oras discover`). Signed things are, besides, layers of the
two images that cosign looks for by tag: `sha256-<digest>.att` with attestations, `sha256-<digest>.sig` with signatures.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay import oci
from assay.certificate.dsse import ENVELOPE_MEDIA_TYPE, Envelope
from assay.certificate.evidence import canonical_json
from assay.keys import SigningKey
from assay.oci import Manifest

CERTIFICATE_TYPE = "application/vnd.in-toto.test-result+dsse"
PROVENANCE_TYPE = "application/vnd.in-toto.provenance+dsse"
REVOCATION_TYPE = "application/vnd.in-toto.revocation+dsse"
CYCLONEDX = "application/vnd.cyclonedx+json"
SBOM_PREDICATE = "https://cyclonedx.org/bom"

_COSIGN_SIGNATURE_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"
_SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
_COSIGN_SIGNATURE = "dev.cosignproject.cosign/signature"
_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Attachment:
    """A manifest with the blobs that it needs. name: what to call it to people."""

    name: str
    manifest: Manifest
    blobs: tuple[bytes, ...]


@dataclass(frozen=True)
class SimpleSigning:
    """cosign's signature of an image: a small JSON document that names its digest, and the signature over it."""

    payload: bytes
    signature: bytes


def simple_signing(repository: str, digest: str, key: SigningKey) -> SimpleSigning:
    """Sign an image as `cosign sign` does. repository: `HOST/NAME`."""
    payload = canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": {"creator": "assay"},
        }
    )
    return SimpleSigning(payload, key.sign(payload))


def envelope(
    name: str, artifact_type: str, content: Envelope, subject: Manifest, annotations: Mapping[str, str]
) -> Attachment:
    """Return a DSSE envelope as an artifact that refers to `subject`."""
    data = content.to_bytes()
    layer = {**oci.descriptor(ENVELOPE_MEDIA_TYPE, data), "annotations": {_TITLE: f"{name}.json"}}
    manifest = oci.artifact(artifact_type, [layer], subject=subject.descriptor(), annotations=annotations)
    return Attachment(name, manifest, (oci.EMPTY, data))


def sbom(content: bytes, signed: Envelope | None, subject: Manifest, annotations: Mapping[str, str]) -> Attachment:
    """Return the SBOM as an artifact, with its attestation beside it where it is signed."""
    blobs = [content]
    layers = [{**oci.descriptor(CYCLONEDX, content), "annotations": {_TITLE: "sbom.cdx.json"}}]
    if signed:
        blobs.append(signed.to_bytes())
        note = {_TITLE: "sbom.attestation.json"}
        layers.append({**oci.descriptor(ENVELOPE_MEDIA_TYPE, blobs[-1]), "annotations": note})
    manifest = oci.artifact(CYCLONEDX, layers, subject=subject.descriptor(), annotations=annotations)
    return Attachment("sbom", manifest, (oci.EMPTY, *blobs))


def signature(signing: SimpleSigning, subject: Manifest, annotations: Mapping[str, str]) -> Attachment:
    """Return the image's signature as an artifact."""
    manifest = oci.artifact(
        _COSIGN_SIGNATURE_TYPE, [_signature_layer(signing)], subject=subject.descriptor(), annotations=annotations
    )
    return Attachment("signature", manifest, (oci.EMPTY, signing.payload))


def cosign_attestations(present: Manifest | None, added: Sequence[Envelope]) -> Attachment:
    """Return the image behind `sha256-<digest>.att`: what is there, and the added attestations."""
    layers = []
    for one in added:
        note = {_COSIGN_SIGNATURE: "", "predicateType": str(json.loads(one.payload)["predicateType"])}
        layers.append({**oci.descriptor(ENVELOPE_MEDIA_TYPE, one.to_bytes()), "annotations": note})
    return _cosign_image("attestations", present, layers, [one.to_bytes() for one in added])


def cosign_signatures(present: Manifest | None, added: SimpleSigning) -> Attachment:
    """Return the image behind `sha256-<digest>.sig`: what is there, and the added signature."""
    return _cosign_image("signatures", present, [_signature_layer(added)], [added.payload])


def referrers_index(listed: Sequence[Mapping[str, Any]], added: Sequence[Attachment]) -> Manifest:
    """Return the index behind the referrers tag: what is listed, and the added artifacts."""
    entries = {str(one["digest"]): dict(one) for one in listed}
    for attachment in added:
        content = attachment.manifest.json
        entry = {**attachment.manifest.descriptor(), "artifactType": content["artifactType"]}
        if "annotations" in content:
            entry["annotations"] = content["annotations"]
        entries.setdefault(attachment.manifest.digest, entry)
    return oci.index(list(entries.values()))


def _signature_layer(signing: SimpleSigning) -> dict[str, Any]:
    note = {_COSIGN_SIGNATURE: base64.b64encode(signing.signature).decode()}
    return {**oci.descriptor(_SIMPLE_SIGNING, signing.payload), "annotations": note}


def _cosign_image(
    name: str, present: Manifest | None, added: Sequence[Mapping[str, Any]], blobs: Sequence[bytes]
) -> Attachment:
    """Return an image of the present layers and the added ones, each layer once."""
    layers = {}
    for layer in [*(present.json.get("layers", []) if present else []), *added]:
        # Two signatures of one payload differ in their annotation only: both stay.
        layers[layer["digest"], json.dumps(layer.get("annotations", {}), sort_keys=True)] = dict(layer)
    content = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers.values()]},
    }
    config = canonical_json(content)
    manifest = oci.image(oci.descriptor(oci.IMAGE_CONFIG, config), list(layers.values()))
    return Attachment(name, manifest, (config, *blobs))
