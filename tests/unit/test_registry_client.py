"""What the registry client asks for, pages through and says, against small HTTP servers on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from http_answers import Answer, Servers

from assay import oci
from assay.errors import RegistryError, UsageError
from assay.oci import Manifest, Reference, parse_reference
from assay.registry import AnswerError, Registry


@pytest.fixture
def serve() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


def client(host: str, **options: Any) -> Registry:
    return Registry(host, **{"allow_http": True, "credentials": lambda _: None, "sleep": lambda _: None, **options})


TAGS = json.dumps({"name": "x", "tags": ["latest"]}).encode()


def test_lists_are_read_to_their_last_page(serve: Servers) -> None:
    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if "last=b" in path:
            return 200, {}, b'{"tags": ["c"]}'
        return 200, {"Link": '</v2/x/tags/list?last=b>; rel="next"'}, b'{"tags": ["a", "b"]}'

    assert client(serve(respond)).tags("x") == ["a", "b", "c"]


def test_the_referrers_api_is_used_where_there_is_one(serve: Servers) -> None:
    entry = {"mediaType": oci.MANIFEST, "digest": "sha256:" + "1" * 64, "size": 1}

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if "/referrers/" in path:
            return 200, {}, oci.index([entry]).data
        return 404, {}, b""

    assert client(serve(respond)).referrers("x", "sha256:" + "2" * 64) == [entry]


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(serve: Servers) -> None:
    registry = client(serve(lambda *_: (200, {"Content-Type": oci.MANIFEST}, b'{"schemaVersion": 2}')))
    with pytest.raises(RegistryError, match="asked for"):
        registry.manifest("x", "sha256:" + "0" * 64)
    with pytest.raises(RegistryError, match="damaged"):
        registry.blob("x", "sha256:" + "0" * 64)


def test_retry_after_is_kept_to(serve: Servers) -> None:
    answers = iter([(429, {"Retry-After": "7"}, b""), (200, {}, TAGS)])
    pauses: list[float] = []

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        return (200, {}, b"{}") if path == "/v2/" else next(answers)

    lines: list[str] = []
    registry = client(serve(respond), sleep=pauses.append, on_retry=lines.append)
    assert registry.tags("x") == ["latest"]
    assert pauses == [7.0]
    assert "trying again in 7.0 s" in lines[0]


def test_the_registry_s_own_explanation_is_passed_on(serve: Servers) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "quota is used up"}]}).encode()
    with pytest.raises(AnswerError, match=r"DENIED: quota is used up") as caught:
        client(serve(lambda *_: (403, {}, said))).put_manifest("x", "latest", Manifest(b"{}", oci.MANIFEST))
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/me/newbie:latest", Reference("ghcr.io", "me/newbie", "latest")),
        ("localhost:5000/newbie", Reference("localhost:5000", "newbie")),
        ("localhost:5000", Reference("localhost:5000", "default")),
        ("ghcr.io/a/b@sha256:" + "0" * 64, Reference("ghcr.io", "a/b", None, "sha256:" + "0" * 64)),
        ("ghcr.io/a/b:t@sha256:" + "0" * 64, Reference("ghcr.io", "a/b", "t", "sha256:" + "0" * 64)),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    found = parse_reference(text, "default")
    assert found == expected
    if expected.repository != "default":
        assert str(found) == text


@pytest.mark.parametrize("text", ["", "newbie:latest", "ghcr.io/UPPER", "ghcr.io/a:b:c", "ghcr.io/a@sha256:12", "-/a"])
def test_what_is_no_reference_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="HOST"):
        parse_reference(text)
