"""Registries on loopback: Debian's docker-registry as it is, and one behind a proxy that fails on purpose."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

READY_SECONDS = 20
USER, PASSWORD = "tester", "tests-only"
HTPASSWD = f"{USER}:$2b$04$wlf.p0DNOw.t6LCMA/9TlupbZyHprQ5.9eIE62cgk3ZoAfOqbTIVi"
"""The line that lets USER in with PASSWORD (bcrypt, the only kind that docker-registry reads)."""


def free_port() -> int:
    """Return a port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def docker_registry(folder: Path, *, delete: bool = True, htpasswd: str | None = None) -> Iterator[str]:
    """Run docker-registry; yield its `localhost:PORT`. htpasswd: the one line of users that it lets in."""
    port = free_port()
    settings = [
        "version: 0.1",
        "log: {level: error, accesslog: {disabled: true}}",
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: {str(delete).lower()}}}}}",
        f"http: {{addr: '127.0.0.1:{port}', secret: assay-tests}}",
    ]
    if htpasswd:
        (folder / "htpasswd").write_text(f"{htpasswd}\n")
        settings.append(f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}")
    (folder / "registry.yml").write_text("\n".join(settings) + "\n")
    with (folder / "registry.log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
        try:
            _wait(port, server, folder / "registry.log")
            yield f"localhost:{port}"
        finally:
            server.terminate()
            server.wait(10)


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"docker-registry ended: {log.read_text()}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"docker-registry is not ready after {READY_SECONDS} s: {log.read_text()}")


@dataclass(frozen=True)
class Fault:
    """What the proxy does instead of passing a request on. after: pass it on first, then lose the answer."""

    status: int
    after: bool = False


Rule = Callable[[str, str], Fault | None]


@dataclass
class Proxy:
    """A proxy before a registry. rule: asked for every request (method, path). seen: every request, in order."""

    host: str
    rule: Rule | None = None
    seen: list[tuple[str, str]] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up, as they do when TLS is answered in HTTP."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def faulty_proxy(target: str) -> Iterator[Proxy]:
    """Run a proxy before `localhost:PORT`; it passes everything on until it is given a rule."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # What is no HTTP, as the TLS that clients try first, is answered in HTTP: only then do they fall back to that.
        default_request_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self._body()
            proxy.seen.append((self.command, self.path))
            fault = proxy.rule(self.command, self.path) if proxy.rule else None
            if fault and not fault.after:
                self._answer(fault.status, [], b"")
                return
            headers = {key: value for key, value in self.headers.items() if key.lower() != "transfer-encoding"}
            headers["Content-Length"] = str(len(body))
            with closing(http.client.HTTPConnection(target, timeout=60)) as upstream:
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
            if fault:
                self._answer(fault.status, [], b"")
            else:
                self._answer(answer.status, answer.getheaders(), content)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _pass_on  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for key, value in headers:
                if key.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(key, value)
            if not any(key.lower() == "content-length" for key, _ in headers):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Stay quiet."""

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Proxy(host=f"localhost:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def fetch(url: str) -> bytes:
    """Return what a loopback URL holds, past any proxy that the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return bytes(answer.read())
