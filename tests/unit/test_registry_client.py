"""How the registry client gets in, pages, and speaks, against small HTTP servers on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from assay import oci
from assay.errors import RegistryError, UsageError
from assay.oci import Manifest, Reference, parse_reference
from assay.registry import AnswerError, Credentials, Registry
from assay.registry.access import docker_credentials

Answer = tuple[int, dict[str, str], bytes]
Respond = Callable[[str, str, dict[str, str], bytes], Answer]


@pytest.fixture
def serve() -> Iterator[Callable[[Respond], str]]:
    """Starts a server that answers by a function of method, path, headers and body; returns its host."""
    servers: list[ThreadingHTTPServer] = []

    def start(respond: Respond) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, content = respond(self.command, self.path, dict(self.headers), body)
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

            def log_message(self, *args: Any) -> None:
                """Stay quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"localhost:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def client(host: str, credentials: Credentials | None = None, **options: Any) -> Registry:
    return Registry(
        host, **{"allow_http": True, "credentials": lambda _: credentials, "sleep": lambda _: None, **options}
    )


TAGS = json.dumps({"name": "x", "tags": ["latest"]}).encode()


def test_a_basic_challenge_is_answered_with_name_and_password(serve: Callable[[Respond], str]) -> None:
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
def test_a_token_is_fetched_for_the_scope_once(serve: Callable[[Respond], str], identity: bool) -> None:
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


def test_credentials_are_not_sent_to_a_realm_without_tls(serve: Callable[[Respond], str]) -> None:
    host = serve(lambda *_: (401, {"WWW-Authenticate": 'Bearer realm="http://elsewhere.invalid/token"'}, b""))
    registry = client(host, Credentials("me", "pass"), allow_http=False)
    registry._found_base = f"http://{host}"
    with pytest.raises(RegistryError, match="without TLS: refused"):
        registry.tags("x")


def test_plain_http_is_refused_unless_allowed(serve: Callable[[Respond], str]) -> None:
    host = serve(lambda *_: (200, {}, TAGS))
    with pytest.raises(RegistryError, match="--allow-http"):
        client(host, allow_http=False).tags("x")


def test_netrc_is_not_sent(serve: Callable[[Respond], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        seen.append(headers.get("Authorization"))
        return 200, {}, TAGS

    (tmp_path / "netrc").write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client(serve(respond)).tags("x")
    assert set(seen) == {None}


def test_lists_are_read_to_their_last_page(serve: Callable[[Respond], str]) -> None:
    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if "last=b" in path:
            return 200, {}, b'{"tags": ["c"]}'
        return 200, {"Link": '</v2/x/tags/list?last=b>; rel="next"'}, b'{"tags": ["a", "b"]}'

    assert client(serve(respond)).tags("x") == ["a", "b", "c"]


def test_the_referrers_api_is_used_where_there_is_one(serve: Callable[[Respond], str]) -> None:
    entry = {"mediaType": oci.MANIFEST, "digest": "sha256:" + "1" * 64, "size": 1}

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if "/referrers/" in path:
            return 200, {}, oci.index([entry]).data
        return 404, {}, b""

    assert client(serve(respond)).referrers("x", "sha256:" + "2" * 64) == [entry]


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(serve: Callable[[Respond], str]) -> None:
    registry = client(serve(lambda *_: (200, {"Content-Type": oci.MANIFEST}, b'{"schemaVersion": 2}')))
    with pytest.raises(RegistryError, match="asked for"):
        registry.manifest("x", "sha256:" + "0" * 64)
    with pytest.raises(RegistryError, match="damaged"):
        registry.blob("x", "sha256:" + "0" * 64)


def test_retry_after_is_kept_to(serve: Callable[[Respond], str]) -> None:
    answers = iter([(429, {"Retry-After": "7"}, b""), (200, {}, TAGS)])
    pauses: list[float] = []

    def respond(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        return (200, {}, b"{}") if path == "/v2/" else next(answers)

    lines: list[str] = []
    registry = client(serve(respond), sleep=pauses.append, on_retry=lines.append)
    assert registry.tags("x") == ["latest"]
    assert pauses == [7.0]
    assert "trying again in 7.0 s" in lines[0]


def test_the_registry_s_own_explanation_is_passed_on(serve: Callable[[Respond], str]) -> None:
    said = json.dumps({"errors": [{"code": "DENIED", "message": "quota is used up"}]}).encode()
    with pytest.raises(AnswerError, match=r"DENIED: quota is used up") as caught:
        client(serve(lambda *_: (403, {}, said))).put_manifest("x", "latest", Manifest(b"{}", oci.MANIFEST))
    assert caught.value.status == 403


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
