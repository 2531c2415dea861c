"""What the engine says while it pushes, as real engines said it, and what is made of that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from assay.engine import Engine
from assay.errors import RegistryError
from assay.oci import parse_reference
from assay.publish.push import ATTEMPTS, push

IMAGE = f"sha256:{'1' * 64}"
DIGEST = f"sha256:{'2' * 64}"
TARGET = parse_reference("registry.invalid:5000/me/x:t")
BEGUN = {"status": "The push refers to repository [registry.invalid:5000/me/x]"}
TOLD = {"status": f"t: digest: {DIGEST} size: 405"}
CONTAINERD = [BEGUN, {"status": "Pushed", "progressDetail": {}, "id": "05645a68cb2f"}, TOLD]
"""By Docker Engine 28.5.2 with containerd's image store."""
CLASSIC = [*CONTAINERD, {"progressDetail": {}, "aux": {"Tag": "t", "Digest": DIGEST, "Size": 405}}]
"""By Docker Engine 20.10.24."""


class Api:
    """Plays an engine's answers, and keeps what it was asked for."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def tag(self, image: str, name: str, tag: str, *, force: bool) -> None:
        self.asked.append(f"tag {image} {name}:{tag}")

    def remove_image(self, name: str, *, noprune: bool) -> None:
        self.asked.append(f"remove {name}")

    def push(self, name: str, tag: str, **_: bool) -> list[dict[str, Any]]:
        self.asked.append(f"push {name}:{tag}")
        return self.answers.pop(0)


def pushed(api: Api) -> tuple[str, list[str]]:
    lines: list[str] = []
    return push(cast(Engine, SimpleNamespace(api=api)), IMAGE, TARGET, lines.append), lines


@pytest.mark.parametrize("answer", [CLASSIC, CONTAINERD], ids=["classic store", "containerd's store"])
def test_the_digest_is_found_whatever_the_engine_keeps_images_in(answer: list[dict[str, Any]]) -> None:
    api = Api(answer)
    assert pushed(api) == (DIGEST, [])
    name = "registry.invalid:5000/me/x:t"
    assert api.asked == [f"tag {IMAGE} {name}", f"push {name}", f"remove {name}"]


@pytest.mark.parametrize(
    "words",
    [
        f"other: digest: {DIGEST} size: 405",
        f"t: digest: {DIGEST[:-1]} size: 405",
        f"layer t: digest: {DIGEST} size: 405",
        "t: digest: size: 405",
    ],
)
def test_words_that_only_look_like_it_are_no_digest(words: str) -> None:
    api = Api(*[[BEGUN, {"status": words}]] * ATTEMPTS)
    with pytest.raises(RegistryError, match="the engine reported no digest"):
        pushed(api)


def test_what_breaks_after_the_digest_was_told_counts_as_broken() -> None:
    """And is tried again."""
    broken = [*CONTAINERD, {"error": "unexpected EOF", "errorDetail": {"message": "unexpected EOF"}}]
    digest, lines = pushed(Api(broken, CONTAINERD))
    assert digest == DIGEST
    assert len(lines) == 1
    assert "unexpected EOF" in lines[0]


@pytest.mark.parametrize(
    ("trouble", "advice"),
    [
        ('Head "https://registry.invalid:41389/v2/": EOF', ""),
        ("unexpected status: 413 Request Entity Too Large", "; raise the limit of the registry"),
        ("error parsing HTTP 413 response body: invalid character", "; raise the limit of the registry"),
        ("blob upload: too large", "; raise the limit of the registry"),
        ("http: server gave HTTP response to HTTPS client", "; add registry.invalid:5000 to insecure-registries"),
        ("tls: first record does not look like a TLS handshake", "; add registry.invalid:5000 to insecure-registries"),
        ("denied: permission_denied: write_package", "; run `docker login registry.invalid:5000` as someone who may"),
    ],
)
def test_advice_fits_the_engines_words(trouble: str, advice: str) -> None:
    with pytest.raises(RegistryError) as caught:
        pushed(Api(*[[BEGUN, {"error": trouble}]] * ATTEMPTS))
    said = str(caught.value)
    start = f"the engine could not push to registry.invalid:5000/me/x: {trouble}"
    assert said.startswith(f"{start}{advice}")
    assert advice or said == start
