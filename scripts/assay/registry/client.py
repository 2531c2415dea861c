"""A registry's manifests, tags, blobs and referrers."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from assay import oci
from assay.errors import RegistryError
from assay.oci import Manifest
from assay.registry.transport import ATTEMPTS, PASSING, AnswerError, Transport

LARGEST_MANIFEST = 4 * 1024 * 1024
"""Bytes; the specification asks registries to take manifests up to this size."""

_ACCEPT = {"Accept": ", ".join((oci.MANIFEST, oci.INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_LIST))}
_NO_SUCH_FEATURE = frozenset({400, 403, 405, 501})


class Registry(Transport):
    """One registry, by what it stores. All methods raise RegistryError when it cannot be asked."""

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """Return what a tag or digest names, or None. Raises RegistryError when it is not what the digest says."""
        answer = self._ask("GET", repository, f"manifests/{reference}", headers=_ACCEPT)
        if answer is None:
            return None
        if len(answer.content) > LARGEST_MANIFEST:
            raise RegistryError(f"{self.host} sent a manifest of {len(answer.content):,} bytes for {reference}")
        found = Manifest(answer.content, answer.headers.get("Content-Type", "").split(";")[0].strip())
        if reference.startswith("sha256:") and found.digest != reference:
            raise RegistryError(f"{self.host}/{repository}: asked for {reference}, got {found.digest}")
        return found

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> bool:
        """Store a manifest under a tag or its digest; say whether the registry lists it with its subject by itself."""
        headers = {"Content-Type": manifest.media_type}
        try:
            answer = self._ask("PUT", repository, f"manifests/{reference}", "pull,push", manifest.data, headers)
        except RegistryError:
            # The answer may have been lost after the work was done.
            if self.manifest(repository, reference) == manifest:
                return False
            raise
        if answer is None:
            raise RegistryError(f"{self.host} knows no repository {repository} to write {reference} to")
        return "OCI-Subject" in answer.headers

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Delete a manifest and, with it, every tag on it; False when the registry allows no deleting."""
        try:
            self._ask("DELETE", repository, f"manifests/{digest}", "pull,push,delete")
        except AnswerError as error:
            if error.status in _NO_SUCH_FEATURE:
                return False
            raise
        return True

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Take a tag away and leave alone what it names; False when the registry allows no deleting.

        Registries differ in what deleting by tag does, and some refuse it. So the tag is first moved to an empty
        manifest made for it, and that one is deleted by digest, which takes its tags along. Where even this is
        refused, the tag stays on the empty manifest: nobody can pull an image by it.
        """
        self.put_blob(repository, oci.EMPTY)
        nothing = oci.artifact(oci.REMOVED, [], annotations={"io.assay.removed": secrets.token_hex(8)})
        self.put_manifest(repository, tag, nothing)
        return self.delete_manifest(repository, nothing.digest) and self.manifest(repository, tag) is None

    def tagged(self, repository: str, tag: str) -> Manifest | None:
        """Return what a tag names; None also for a tag that was taken away and could not be deleted."""
        found = self.manifest(repository, tag)
        return None if found is None or found.is_nothing else found

    def tags(self, repository: str) -> list[str]:
        """Return all tags of a repository, none where it does not exist yet."""
        return sorted(tag for page in self._pages(repository, "tags/list") for tag in page.get("tags") or [])

    def referrers(self, repository: str, digest: str) -> list[dict[str, Any]]:
        """Return descriptors of what refers to a digest, by the referrers API or the tag that stands in for it."""
        try:
            pages = list(self._pages(repository, f"referrers/{digest}"))
        except AnswerError as error:
            if error.status not in _NO_SUCH_FEATURE:
                raise
            pages = []
        if pages and all(page.get("mediaType") == oci.INDEX for page in pages):
            return [one for page in pages for one in page.get("manifests") or []]
        listed = self.manifest(repository, oci.referrers_tag(digest))
        return list(listed.json.get("manifests") or []) if listed else []

    def blob(self, repository: str, digest: str) -> bytes:
        """Return a blob, checked against its digest. Raises RegistryError when it is missing or another."""
        answer = self._ask("GET", repository, f"blobs/{digest}")
        if answer is None:
            raise RegistryError(f"{self.host}/{repository} lacks the blob {digest}")
        if oci.digest_of(answer.content) != digest:
            raise RegistryError(f"{self.host}/{repository}: the blob {digest} is damaged")
        return answer.content

    def blob_size(self, repository: str, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None where the repository lacks it."""
        answer = self._ask("HEAD", repository, f"blobs/{digest}")
        return None if answer is None else int(answer.headers.get("Content-Length", -1))

    def put_blob(self, repository: str, data: bytes) -> str:
        """Store a blob unless it is there; return its digest. A broken upload starts again from its beginning."""
        digest = oci.digest_of(data)
        if self.blob_size(repository, digest) is not None:
            return digest
        headers = {"Content-Type": "application/octet-stream"}
        attempt = 1
        while True:
            start = self._ask("POST", repository, "blobs/uploads/", "pull,push")
            if start is None or "Location" not in start.headers:
                raise RegistryError(f"{self.host} names no place for an upload to {repository}")
            url = urljoin(start.url, start.headers["Location"])
            url += f"{'&' if urlsplit(url).query else '?'}digest={digest}"
            try:
                self.send("PUT", url, scope=_scope(repository, "pull,push"), data=data, headers=headers, attempts=1)
            except RegistryError as error:
                # 404: the registry forgot the upload, as it does after an error of its own
                final = isinstance(error, AnswerError) and error.status not in PASSING | {404}
                if final or attempt >= ATTEMPTS:
                    raise
                self.pause(attempt, str(error))
                attempt += 1
            else:
                return digest

    def _ask(
        self,
        method: str,
        repository: str,
        path: str,
        actions: str = "pull",
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response | None:
        """Send one request about a repository; None when there is no such thing (404)."""
        url = f"{self.base}/v2/{repository}/{path}"
        try:
            return self.send(method, url, scope=_scope(repository, actions), data=data, headers=headers)
        except AnswerError as error:
            if error.status == 404:
                return None
            raise

    def _pages(self, repository: str, path: str) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of a list that may come in parts."""
        answer = self._ask("GET", repository, path)
        while answer is not None:
            try:
                page = answer.json()
            except ValueError:
                return
            if isinstance(page, dict):
                yield page
            following = answer.links.get("next", {}).get("url")
            if not following:
                return
            answer = self.send("GET", urljoin(answer.url, following), scope=_scope(repository, "pull"))


def _scope(repository: str, actions: str) -> str:
    return f"repository:{repository}:{actions}"
