"""What of a repository nobody needs any more: found by reading it, removed only when asked to.

Never removed: an image without a certificate of ours (someone else put it there), an image that a moving tag names, the
newest images of each row, and everything that is attached to what is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from assay import oci, tags
from assay.errors import CertificateError
from assay.oci import Reference
from assay.publish.push import CANDIDATE
from assay.registry import Registry
from assay.verify import Examination, Trust, examine

_ATTACHED = re.compile(r"sha256-([0-9a-f]{64})(?:\.att|\.sig)?")


@dataclass(frozen=True, kw_only=True)
class Useless:
    """Something to remove: a tag alone, or a manifest with all that carries or describes it.

    digests: manifests to delete; tags: names to take away. why: one line for people.
    """

    name: str
    why: str
    digests: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Image:
    digest: str
    tags: tuple[str, ...]
    row: str
    certified: datetime
    revoked: bool

    @property
    def pinned_by_moving_tag(self) -> bool:
        return any(not tags.is_full(tag) for tag in self.tags)


def find(registry: Registry, target: Reference, trust: Trust, keep: int = 1) -> list[Useless]:
    """Return what may go. keep: how many of each row's images stay besides those that moving tags name.

    Raises RegistryError when the repository cannot be read whole: nothing is judged by half.
    """
    repository = target.repository
    named = _digests(registry, repository)
    found: list[Useless] = [
        Useless(name=f"{target.name}:{tag}", why="left over from a push that broke", tags=(tag,))
        for tag in named
        if tag.startswith(CANDIDATE)
    ]
    images = _images(registry, target, named, trust)
    gone = [image for image in images if _superseded(image, images, keep)]
    kept = set(named.values()) - {image.digest for image in gone}
    needed = {part for digest in kept for part in _attached(registry, repository, digest, named)}
    for image in gone:
        why = "its certificates are revoked" if image.revoked else f"{image.row} has a newer certified image"
        parts = [part for part in _attached(registry, repository, image.digest, named) if part not in needed]
        found.append(
            Useless(
                name=f"{target.at(image.digest)} ({', '.join(image.tags)})",
                why=why,
                digests=(*parts, image.digest),
            )
        )
    for tag, digest in named.items():
        held = registry.manifest(repository, tag)
        if held is not None and held.is_nothing and not tag.startswith(CANDIDATE):
            found.append(Useless(name=f"{target.name}:{tag}", why="it was taken away already", digests=(digest,)))
            continue
        match = _ATTACHED.fullmatch(tag)
        about = f"sha256:{match[1]}" if match else ""
        if match and registry.manifest(repository, about) is None:
            found.append(
                Useless(name=f"{target.name}:{tag}", why=f"it is about {about[:19]}, which is gone", digests=(digest,))
            )
    return found


def remove(registry: Registry, target: Reference, useless: Useless) -> bool:
    """Remove one thing; False when the registry allows no deleting."""
    done = [registry.remove_tag(target.repository, tag) for tag in useless.tags]
    done += [registry.delete_manifest(target.repository, digest) for digest in useless.digests]
    return all(done)


def _digests(registry: Registry, repository: str) -> dict[str, str]:
    """Return every tag with the digest that it names."""
    named = {tag: registry.manifest(repository, tag) for tag in registry.tags(repository)}
    return {tag: manifest.digest for tag, manifest in named.items() if manifest}


def _images(registry: Registry, target: Reference, named: Mapping[str, str], trust: Trust) -> list[_Image]:
    """Return the images that carry a certificate which is believed."""
    carrying: dict[str, list[str]] = {}
    for tag, digest in named.items():
        if not _ATTACHED.fullmatch(tag) and not tag.startswith(CANDIDATE):
            carrying.setdefault(digest, []).append(tag)
    images = []
    for digest, on_it in carrying.items():
        try:
            seen: Examination = examine(registry, target.at(digest), trust)
        except CertificateError:
            continue  # a list of images, or nothing that assay published
        believed = [one.certificate.evidence for one in seen.attested if one.certificate.certified]
        if believed:
            newest = max(believed, key=lambda evidence: evidence.finished)
            images.append(
                _Image(
                    digest=digest,
                    tags=tuple(sorted(on_it)),
                    row=newest.row_id,
                    certified=newest.finished,
                    revoked=bool(seen.revocations) and not seen.standing(),
                )
            )
    return images


def _superseded(image: _Image, images: list[_Image], keep: int) -> bool:
    if image.pinned_by_moving_tag:
        return False
    if image.revoked:
        return True
    newer = [one for one in images if one.row == image.row and not one.revoked and one.certified > image.certified]
    return len(newer) >= max(keep, 1)


def _attached(registry: Registry, repository: str, digest: str, named: Mapping[str, str]) -> list[str]:
    """Return the digests of everything that describes an image."""
    found = [str(one["digest"]) for one in registry.referrers(repository, digest)]
    stem = oci.referrers_tag(digest)
    return found + [named[tag] for tag in (stem, f"{stem}.att", f"{stem}.sig") if tag in named]
