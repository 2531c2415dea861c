"""How the registry client gets in: credentials, tokens and TLS, against small HTTP servers on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import certifi
import pytest
from http_answers import Answer, Respond, Servers, write_certificate

from assay.errors import RegistryError
from assay.registry import AnswerError, Credentials, Registry, transport
from assay.registry.access import docker_credentials


@pytest.fixture
def serve() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path / "localhost.pem")


def client(host: str, credentials: Credentials | None = None, **options: Any) -> Registry:
    return Registry(
        host, **{"allow_http": True, "credentials": lambda _: credentials, "sleep": lambda _: None, **options}
    )


TAGS = json.dumps({"name": "x", "tags": ["latest"]}).encode()


def test_a_basic_challenge_is_answered_with_name_and_password(serve: Servers) -> None:
    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if headers.get("Authorization") == "Basic " + base64.b64encode(b"me:pass").decode():
            return 200, {}, TAGS
        return 401, {"WWW-Authenticate": 'Basic realm="r"'}, b""

    host = serve(respond)
    assert client(host, Credentials("me", "pass")).tags("x") == ["latest"]
    with pytest.raises(AnswerError, match=f"run `docker login {host}`"):
        client(host).tags("x")
    with pytest.raises(AnswerError, match="refuses the credentials"):
        client(host, Credentials("me", "wrong")).tags("x")


@pytest.mark.parametrize("identity", [False, True], ids=["password", "identity-token"])
def test_a_token_is_fetched_for_the_scope_once(serve: Servers, identity: bool) -> None:
    asked: list[dict[str, list[str]]] = []

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path.startswith("/token"):
            asked.append(parse_qs(body.decode() if method == "POST" else urlsplit(path).query))
            basic = "Basic " + base64.b64encode(b"me:pass").decode()
            good = asked[-1].get("refresh_token") == ["idt"] if identity else headers.get("Authorization") == basic
            return (200, {}, b'{"token": "T"}') if good else (403, {}, b"")
        if headers.get("Authorization") == "Bearer T":
            return 200, {}, TAGS
        realm = f"http://{headers['Host']}/token"
        return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s",scope="repository:x:pull"'}, b""

    given = Credentials(identity_token="idt") if identity else Credentials("me", "pass")
    registry = client(serve(respond), given)
    assert registry.tags("x") == ["latest"]
    assert registry.tags("x") == ["latest"]
    assert len(asked) == 1
    assert asked[0]["scope"] == ["repository:x:pull"]
    assert asked[0]["service"] == ["s"]


def test_credentials_are_not_sent_to_a_realm_without_tls(serve: Servers) -> None:
    host = serve(lambda *_: (401, {"WWW-Authenticate": 'Bearer realm="http://elsewhere.invalid/token"'}, b""))
    registry = client(host, Credentials("me", "pass"), allow_http=False)
    registry._found_base = f"http://{host}"
    with pytest.raises(RegistryError, match="without TLS: refused"):
        registry.tags("x")


def with_tokens(*, answer: Answer = (200, {}, b'{"token": "T"}')) -> Respond:
    """A registry that wants a token of its own token service, which gives that answer."""

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path.startswith("/token"):
            return answer
        if headers.get("Authorization") == "Bearer T":
            return 200, {}, TAGS
        return 401, {"WWW-Authenticate": f'Bearer realm="https://{headers["Host"]}/token",service="s"'}, b""

    return respond


def test_a_token_service_is_trusted_as_the_registry_is(
    serve: Servers, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = serve(with_tokens(), certificate)
    with pytest.raises(RegistryError, match="not trusted here"):
        client(host, allow_http=False).tags("x")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert client(host, allow_http=False).tags("x") == ["latest"]


def test_the_authority_that_the_engine_trusts_goes_before_the_environments(
    serve: Servers, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = serve(with_tokens(), certificate)
    monkeypatch.setattr(transport, "CERTIFICATES", certificate.parent / "certs.d")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    (certificate.parent / "certs.d" / host).mkdir(parents=True)
    (certificate.parent / "certs.d" / host / "ca.crt").write_bytes(certificate.read_bytes())
    assert client(host, allow_http=False).tags("x") == ["latest"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"token": null}'])
def test_a_token_service_without_a_token_is_named(
    serve: Servers, certificate: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    host = serve(with_tokens(answer=(200, {}, body)), certificate)
    with pytest.raises(RegistryError, match=f"the token service https://{host}/token answered 200 without a token"):
        client(host, allow_http=False).tags("x")


def test_an_identity_token_follows_no_redirect(serve: Servers) -> None:
    seen: list[bytes] = []

    def elsewhere(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        seen.append(body)
        return 200, {}, b'{"token": "T"}'

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path.startswith("/token"):
            return 307, {"Location": f"http://{other}/token"}, b""
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{headers["Host"]}/token"'}, b""

    other = serve(elsewhere)
    with pytest.raises(RegistryError, match="answered 307 without a token"):
        client(serve(respond), Credentials(identity_token="idt")).tags("x")
    assert seen == []


def test_a_registry_that_names_itself_by_plain_http_is_asked_over_tls(
    serve: Servers, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if "last=b" in path:
            return 200, {}, b'{"tags": ["c"]}'
        return 200, {"Link": f'<http://{headers["Host"]}/v2/x/tags/list?last=b>; rel="next"'}, b'{"tags": ["a", "b"]}'

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert client(serve(respond, certificate), allow_http=False).tags("x") == ["a", "b", "c"]


def test_plain_http_is_refused_unless_allowed(serve: Servers) -> None:
    host = serve(lambda *_: (200, {}, TAGS))
    with pytest.raises(RegistryError, match="--allow-http"):
        client(host, allow_http=False).tags("x")


def test_netrc_is_not_sent(serve: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        seen.append(headers.get("Authorization"))
        return 200, {}, TAGS

    (tmp_path / "netrc").write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client(serve(respond)).tags("x")
    assert set(seen) == {None}


def test_credentials_come_from_the_docker_configuration_and_its_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"Username": "helped", "Secret": "s"}\'\n')
    helper.chmod(0o755)
    config = {
        "auths": {"plain.example:5000": {"auth": base64.b64encode(b"me:pass").decode()}},
        "credHelpers": {"helped.example": "test"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert docker_credentials("plain.example:5000") == Credentials("me", "pass")
    assert docker_credentials("helped.example") == Credentials("helped", "s")
    assert docker_credentials("unknown.example") is None
    helper.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(RegistryError, match="credential helper"):
        docker_credentials("helped.example")
