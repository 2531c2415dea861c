"""Downloading a release wheel from a real server that breaks off, refuses ranges, changes its file, or lies."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from assay.errors import Cancelled, IngredientError
from assay.wheels import release

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "flash_attn-2.8.3+cu12torch2.4cxx11abiFALSE-cp311-cp311-linux_x86_64.whl"


@dataclass
class Server:
    """A file server on the loopback interface, and how it shall misbehave.

    breaks: after how many bytes of the body each next answer breaks off; the ones after them are whole.
    statuses: answered instead of the file, one a request. requests: the Range header of each request, in order.
    """

    content: bytes = CONTENT
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append(asked)
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            start = 0
            match = re.fullmatch(r"bytes=(\d+)-", asked or "")
            if match and state.ranges:
                start = int(match[1])
                if start >= len(state.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(state.content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            else:
                self.send_response(200)
            body = state.content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.breaks.pop(0)] if state.breaks else body)
            self.close_connection = True

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_port}/v2.8.3/{NAME.replace('+', '%2B')}"
        yield state
        http.shutdown()
        thread.join()


def fetch(server: Server, to: Path, *, sha256: str = SHA256, tries: int = 5) -> list[tuple[int, int]]:
    """Download, and return the progress that was told."""
    told: list[tuple[int, int]] = []
    release.download(
        server.url,
        sha256,
        to,
        on_progress=lambda current, total: told.append((current, total)),
        pauses=(0.0,) * (tries - 1),
    )
    return told


def test_a_file_arrives_whole_with_progress(server: Server, tmp_path: Path) -> None:
    told = fetch(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert server.requests == [None]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    fetch(server, tmp_path / NAME)
    assert server.requests == []


def test_a_broken_transfer_goes_on_from_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.breaks = [300_000, 200_000]
    fetch(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    first = 300_000 // release.PIECE_BYTES * release.PIECE_BYTES  # only whole pieces are written
    second = first + 200_000 // release.PIECE_BYTES * release.PIECE_BYTES
    assert server.requests == [None, f"bytes={first}-", f"bytes={second}-"]


def test_the_next_run_goes_on_from_what_the_last_one_left(server: Server, tmp_path: Path) -> None:
    server.breaks = [6 * release.PIECE_BYTES + 1]
    kept = 6 * release.PIECE_BYTES
    with pytest.raises(IngredientError, match=f"{kept} bytes are kept and the next run goes on"):
        fetch(server, tmp_path / NAME, tries=1)
    assert not (tmp_path / NAME).exists()
    fetch(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests[-1] == f"bytes={kept}-"


def test_a_server_without_ranges_sends_the_whole_file_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.breaks = False, [300_000]
    fetch(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_complete_partial_file_needs_no_byte_more(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    fetch(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("left", [b"x" * 1000, CONTENT + b"more"])
def test_a_partial_file_of_something_else_costs_one_more_try(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(left)
    fetch(server, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_wrong_hash_names_both_hashes_and_what_to_do_and_keeps_nothing(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    got = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(IngredientError) as caught:
        fetch(server, tmp_path / NAME)
    message = str(caught.value)
    assert got in message
    assert SHA256 in message
    assert "flash-attn.sha256" in message
    assert list(tmp_path.iterdir()) == []
    assert server.requests == [None]  # a fresh, whole transfer is not repeated


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(IngredientError, match=f"answered {status} .*--wheelhouse"):
        fetch(server, tmp_path / NAME)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_trouble_of_the_server_is_tried_again(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status, status]
    fetch(server, tmp_path / NAME)
    assert len(server.requests) == 3


def test_a_server_that_is_not_there_is_tried_as_often_as_allowed(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as unused:
        url = f"http://127.0.0.1:{unused.server_port}/{NAME}"
    with pytest.raises(IngredientError, match="download failed 3 times"):
        release.download(url, SHA256, tmp_path / NAME, on_progress=lambda *_: None, pauses=(0.0, 0.0))


def test_the_name_at_the_end_of_a_url_is_decoded() -> None:
    assert release.file_name(f"https://example.org/a/{NAME.replace('+', '%2B')}?x=1#y") == NAME


def test_no_name_in_a_url_leads_out_of_the_folder() -> None:
    assert release.file_name("https://example.org/a/%2e%2e%2f%2e%2e%2fetc%2fx.whl") == "x.whl"


def test_a_run_that_is_asked_to_stop_does_not_wait_for_the_next_try(server: Server, tmp_path: Path) -> None:
    server.statuses = [503]

    def stop(current: int, total: int) -> None:
        raise Cancelled("asked to stop")

    started = time.monotonic()
    with pytest.raises(Cancelled):
        release.download(server.url, SHA256, tmp_path / NAME, on_progress=stop, pauses=(60.0,))
    assert time.monotonic() - started < 30.0
