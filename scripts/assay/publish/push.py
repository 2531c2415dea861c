"""The engine's part of publishing: it pushes an image, which it can do only under a tag."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import requests
from docker.errors import DockerException

from assay.engine import Engine
from assay.errors import RegistryError
from assay.oci import Reference

CANDIDATE = "candidate-"
"""How throw-away tags begin: what carries one is not published."""
ATTEMPTS = 2
"""The engine itself tries each layer five times; this is for its giving up on a manifest."""

# Engine 28.5 with containerd's image store tells the digest in these words only; others add it as data.
_TOLD = re.compile(r"(?P<tag>\S+): digest: (?P<digest>sha256:[0-9a-f]{64}) size: \d+")

_NO_USE = re.compile(r"denied|unauthorized|authentication|no basic auth|not allowed|too large", re.IGNORECASE)
# The status as a word of its own: a port may have these digits.
_TOO_LARGE = re.compile(r"too large|(?<![\w:])413\b")
_PLAIN_HTTP = re.compile(r"HTTP response to HTTPS client|does not look like a TLS handshake")


def candidate_tag(image_id: str) -> str:
    """Return the throw-away tag of an image: the same in every attempt, so that the next one finds and removes it."""
    return f"{CANDIDATE}{image_id.removeprefix('sha256:')[:16]}"


def push(engine: Engine, image_id: str, target: Reference, on_line: Callable[[str], None]) -> str:
    """Push an image to `target` (with its tag) and return the digest of its manifest.

    The name that this needs in the engine is taken away again. Raises RegistryError with the engine's words.
    """
    tag = target.tag or ""
    try:
        engine.api.tag(image_id, target.name, tag, force=True)
        try:
            return _push_with_retries(engine, target.name, tag, on_line)
        finally:
            engine.api.remove_image(f"{target.name}:{tag}", noprune=True)
    except (requests.RequestException, DockerException) as error:
        raise RegistryError(f"the engine could not push {target}: {error}") from error


def _push_with_retries(engine: Engine, name: str, tag: str, on_line: Callable[[str], None]) -> str:
    for attempt in range(1, ATTEMPTS + 1):
        digest, trouble = _push_once(engine, name, tag)
        if digest:
            return digest
        if attempt == ATTEMPTS or _NO_USE.search(trouble):
            raise RegistryError(_words(name, trouble))
        on_line(f"the engine's push to {name} broke ({trouble}); trying again")
    raise AssertionError("unreachable")


def _push_once(engine: Engine, name: str, tag: str) -> tuple[str, str]:
    """Return the manifest's digest, or an empty text and what went wrong."""
    digest, trouble = "", "the engine reported no digest"
    for event in engine.api.push(name, tag, stream=True, decode=True):
        fields: dict[str, Any] = event
        if "error" in fields:
            return "", str(fields.get("errorDetail", {}).get("message") or fields["error"])
        told = _TOLD.fullmatch(str(fields.get("status", "")))
        if told and told["tag"] == tag:
            digest = told["digest"]
        digest = fields.get("aux", {}).get("Digest", digest) or digest
    return digest, trouble


def _words(name: str, trouble: str) -> str:
    host = name.partition("/")[0]
    text = f"the engine could not push to {name}: {trouble}"
    if _PLAIN_HTTP.search(trouble):
        return f"{text}; add {host} to insecure-registries in the engine's daemon.json"
    if _TOO_LARGE.search(trouble):
        return f"{text}; raise the limit of the registry or of the proxy before it (nginx: client_max_body_size)"
    if _NO_USE.search(trouble):
        return f"{text}; run `docker login {host}` as someone who may write there"
    return text
