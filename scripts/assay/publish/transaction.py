"""Changes of a repository that are taken back together when one of them fails."""

from __future__ import annotations

from assay.errors import AssayError, RegistryError
from assay.oci import Manifest
from assay.publish.attachments import Attachment
from assay.registry import Registry


class Transaction:
    """What was changed in one repository, in order, with what was there before."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry = registry
        self._repository = repository
        self._tags: list[tuple[str, Manifest | None, str]] = []
        self._created: list[str] = []

    def add(self, attachment: Attachment) -> bool:
        """Store a manifest with its blobs, untagged; say whether the registry lists it with its subject by itself."""
        for blob in attachment.blobs:
            self._registry.put_blob(self._repository, blob)
        digest = attachment.manifest.digest
        if self._registry.manifest(self._repository, digest) is None:
            self._created.append(digest)
        return self._registry.put_manifest(self._repository, digest, attachment.manifest)

    def set_tag(self, tag: str, manifest: Manifest) -> None:
        """Point a tag at a manifest, storing it where needed. Raises RegistryError when that does not hold."""
        before = self._registry.tagged(self._repository, tag)
        if before is not None and before.digest == manifest.digest:
            return
        # Noted first: an answer may be lost after the registry did what it was asked.
        self._tags.append((tag, before, manifest.digest))
        self._registry.put_manifest(self._repository, tag, manifest)
        now = self._registry.manifest(self._repository, tag)
        if now is None or now.digest != manifest.digest:
            raise RegistryError(f"the tag {tag} was set to {manifest.digest} and names {now and now.digest} now")

    def roll_back(self) -> list[str]:
        """Take everything back, the last change first; return a line for whatever could not be taken back.

        A tag that someone else has moved meanwhile is left alone.
        """
        problems = []
        for tag, before, ours in reversed(self._tags):
            try:
                now = self._registry.manifest(self._repository, tag)
                if now is None or now.digest != ours:
                    continue
                if before is not None:
                    self._registry.put_manifest(self._repository, tag, before)
                elif not self._registry.remove_tag(self._repository, tag):
                    problems.append(f"the registry allows no deleting: the tag {tag} is left, naming nothing")
            except AssayError as error:
                problems.append(f"the tag {tag} could not be taken back: {error}")
        for digest in reversed(self._created):
            try:
                self._registry.delete_manifest(self._repository, digest)
            except AssayError as error:
                problems.append(f"{digest[:19]}, which nothing names, could not be deleted: {error}")
        self._tags.clear()
        self._created.clear()
        return problems
