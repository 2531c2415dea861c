"""Attach things to a published manifest, so that every kind of client finds them."""

from __future__ import annotations

from collections.abc import Sequence

from assay import oci
from assay.certificate.dsse import Envelope
from assay.errors import RegistryError
from assay.oci import Manifest
from assay.publish import attachments
from assay.publish.attachments import Attachment, SimpleSigning
from assay.publish.transaction import Transaction
from assay.registry import Registry


def attach(
    registry: Registry,
    repository: str,
    subject: Manifest,
    artifacts: Sequence[Attachment],
    *,
    attestations: Sequence[Envelope],
    signing: SimpleSigning | None,
    changes: Transaction,
) -> None:
    """Store the artifacts, list them, and add the signed things to cosign's images.

    attestations: signed envelopes; unsigned ones are left out, as cosign could do nothing with them.
    """
    listed_by_registry = [changes.add(one) for one in artifacts]
    if not all(listed_by_registry):
        tag = oci.referrers_tag(subject.digest)
        present = registry.tagged(repository, tag)
        listed = present.json.get("manifests", []) if present else []
        changes.set_tag(tag, attachments.referrers_index(listed, artifacts))
    signed = [one for one in attestations if one.signatures]
    if signed:
        _extend(registry, repository, f"{oci.referrers_tag(subject.digest)}.att", signed, changes)
    if signing:
        tag = f"{oci.referrers_tag(subject.digest)}.sig"
        image = attachments.cosign_signatures(registry.tagged(repository, tag), signing)
        changes.add(image)
        changes.set_tag(tag, image.manifest)


def _extend(registry: Registry, repository: str, tag: str, added: Sequence[Envelope], changes: Transaction) -> None:
    image = attachments.cosign_attestations(registry.tagged(repository, tag), added)
    changes.add(image)
    changes.set_tag(tag, image.manifest)


def read_back(registry: Registry, repository: str, subject: Manifest, artifacts: Sequence[Attachment]) -> None:
    """Read the image and everything attached to it, by digest, and compare.

    Blobs of attachments are read whole; the image's layers, whose digests the registry checked when they came, are
    asked for their sizes. Raises RegistryError naming the first thing that is missing or different.
    """
    if registry.manifest(repository, subject.digest) != subject:
        raise RegistryError(
            f"{registry.host}/{repository} does not hold the manifest {subject.digest} as it was pushed"
        )
    registry.blob(repository, subject.config_digest)
    for layer in subject.json["layers"]:
        if registry.blob_size(repository, layer["digest"]) != layer["size"]:
            raise RegistryError(f"{registry.host}/{repository} lacks the layer {layer['digest']} or holds another size")
    listed = {one["digest"] for one in registry.referrers(repository, subject.digest)}
    for one in artifacts:
        held = registry.manifest(repository, one.manifest.digest)
        if held is None or held.data != one.manifest.data:
            raise RegistryError(f"{registry.host}/{repository} does not hold the {one.name} as it was sent")
        if one.manifest.digest not in listed:
            raise RegistryError(f"{registry.host}/{repository} does not list the {one.name} with its image")
        for blob in one.blobs:
            registry.blob(repository, oci.digest_of(blob))
