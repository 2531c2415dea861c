"""OCI names, descriptors and manifests as plain data: what a registry holds, without one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.errors import RegistryError, UsageError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
REMOVED = "application/vnd.assay.removed"
"""Type of the empty artifact that a tag is moved to on its way out; where a registry cannot delete, it stays there."""

_HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:)|\[[0-9a-f:]+\])(?::[0-9]+)?"
_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_REFERENCE = re.compile(
    rf"(?P<host>{_HOST})(?:/(?P<repository>{_PATH}(?:/{_PATH})*))?"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)


def digest_of(data: bytes) -> str:
    """Return `sha256:<hex>` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Reference:
    """A place in a registry: `HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Host and repository, as engines and cosign name an image."""
        return f"{self.host}/{self.repository}"

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest where one is given, since it cannot move."""
        return self.digest or self.tag or "latest"

    def at(self, digest: str) -> Reference:
        """Return the same place, pinned."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse_reference(text: str, default_repository: str | None = None) -> Reference:
    """Read a reference; the host must be written out.

    default_repository: taken where the text names only a host, as `--registry` may.
    Raises UsageError with the expected form.
    """
    match = _REFERENCE.fullmatch(text)
    repository = (match and match["repository"]) or default_repository
    if not match or not repository:
        raise UsageError(
            f"{text!r} is not of the form HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST],"
            " such as ghcr.io/me/newbie:latest or localhost:5000/newbie"
        )
    return Reference(match["host"], repository, match["tag"], match["digest"])


def is_tag(text: str) -> bool:
    """Say whether a registry would take this as a tag."""
    return re.fullmatch(_TAG, text) is not None


@dataclass(frozen=True)
class Manifest:
    """A manifest as its registry holds it, byte for byte: its digest is that of these bytes."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the bytes."""
        return digest_of(self.data)

    @property
    def json(self) -> dict[str, Any]:
        """The content. Raises RegistryError when it is no JSON object."""
        try:
            value = json.loads(self.data)
        except ValueError as error:
            raise RegistryError(f"the manifest {self.digest} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise RegistryError(f"the manifest {self.digest} is no JSON object")
        return value

    @property
    def is_index(self) -> bool:
        """Whether it lists other manifests instead of describing one image."""
        return self.media_type in (INDEX, DOCKER_LIST)

    @property
    def is_nothing(self) -> bool:
        """Whether a tag on it is one that was taken away, as far as the registry let us."""
        return self.media_type == MANIFEST and self.json.get("artifactType") == REMOVED

    @property
    def config_digest(self) -> str:
        """The digest of the configuration: the engine's image id. Raises RegistryError for an index."""
        config = self.json.get("config")
        if not isinstance(config, dict) or not isinstance(config.get("digest"), str):
            raise RegistryError(f"the manifest {self.digest} ({self.media_type}) names no image configuration")
        return str(config["digest"])

    def descriptor(self) -> dict[str, Any]:
        """Return how others refer to it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """Return how a manifest refers to a blob."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def _manifest(media_type: str, fields: Mapping[str, Any]) -> Manifest:
    content = {"schemaVersion": 2, "mediaType": media_type, **fields}
    return Manifest(json.dumps(content, separators=(",", ":")).encode(), media_type)


def artifact(
    artifact_type: str,
    layers: Sequence[Mapping[str, Any]],
    *,
    subject: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the manifest of something that is no image, as the image specification 1.1 packs it."""
    fields: dict[str, Any] = {
        "artifactType": artifact_type,
        "config": descriptor(EMPTY_CONFIG, EMPTY),
        "layers": list(layers) or [descriptor(EMPTY_CONFIG, EMPTY)],
    }
    if subject:
        fields["subject"] = dict(subject)
    if annotations:
        fields["annotations"] = dict(annotations)
    return _manifest(MANIFEST, fields)


def image(config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Manifest:
    """Return an image manifest; cosign keeps signatures and attestations as the layers of one."""
    return _manifest(MANIFEST, {"config": dict(config), "layers": list(layers)})


def index(manifests: Sequence[Mapping[str, Any]]) -> Manifest:
    """Return an index of manifests."""
    return _manifest(INDEX, {"manifests": list(manifests)})


def referrers_tag(digest: str) -> str:
    """Return the tag that lists a digest's referrers in registries without the referrers API."""
    return digest.replace(":", "-")
