"""What becomes of a row whose ready-made wheel cannot be had, up to where an engine would be needed."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console
from wheel_factory import fatbin, shared_object, wheel

from assay import checks, releases, wheels
from assay.errors import EngineError
from assay.files import file_sha256
from assay.findings import Level
from assay.matrix.row import FlashAttn, Row
from assay.network import NetworkSettings
from assay.progress import View
from assay.row_run import Surroundings, judge_row


class NoEngine:
    """Stands where an engine would: what it can do is known, and whoever asks it to do something fails."""

    buildkit = True
    supports_copy_link = False


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path / "state"))
    return Surroundings(
        engine=NoEngine(),  # type: ignore[arg-type]
        network=NetworkSettings(),
        releases=releases.load(),
        checks_digest=checks.digest(),
        folder=tmp_path,
        out=tmp_path / "out",
        level=Level.IMAGE,
        gpu=None,
        wheelhouses=(tmp_path / "house",),
        fresh=False,
        key=None,
        view=View(["cu121"], Console(file=io.StringIO())),
        cancel=threading.Event(),
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of the files in tmp_path/served; its address."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def row(**flash_attn: str) -> Row:
    return Row(id="cu121", expect="certify", flash_attn=replace(FlashAttn(), **flash_attn))


def test_a_release_with_another_hash_makes_the_row_inconclusive_and_names_both(
    tmp_path: Path, around: Surroundings, server: str
) -> None:
    made = wheel(tmp_path / "served", version="2.8.3+cu12torch2.4cxx11abiFALSE")
    report = judge_row(row(source="release", url=f"{server}/{made.name}", sha256="0" * 64), around)
    assert report.verdict == "inconclusive"
    assert f"has sha256 {file_sha256(made)}, but the matrix asks for {'0' * 64}" in report.why


def test_a_release_is_fetched_before_anything_is_composed(tmp_path: Path, around: Surroundings, server: str) -> None:
    made = wheel(tmp_path / "served", version="2.8.3+cu12torch2.4cxx11abiFALSE")
    asked = row(source="release", url=f"{server}/{made.name}", sha256=file_sha256(made))
    report = judge_row(asked, around)
    assert "NoEngine" in report.why  # got as far as the base
    assert wheels.lookup(asked, wheelhouses=[]) is not None
    assert file_sha256(made) in (around.out / "cu121" / "Dockerfile").read_text()


def test_a_wheelhouse_without_a_wheel_that_fits_says_why_not(tmp_path: Path, around: Surroundings) -> None:
    wheel(tmp_path / "house", library=shared_object(device_code=fatbin(["90"])))
    report = judge_row(row(source="wheelhouse"), around)
    assert report.verdict == "inconclusive"
    assert "holds no machine code for sm_80 (it holds sm_90)" in report.why


@pytest.mark.parametrize("error", [EngineError, ZeroDivisionError])
def test_why_a_row_is_inconclusive_is_told_without_passwords(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("no answer from http://bob:s3cret@proxy.invalid, asked as bob:s3cret")

    monkeypatch.setattr("assay.row_run.base.ensure", fail)
    monkeypatch.setattr("assay.row_run._recorded", lambda *_: None)
    machine = NetworkSettings(proxies={"http_proxy": "http://bob:s3cret@proxy.invalid"})
    report = judge_row(row(source="none"), replace(around, network=machine))
    assert "http://****@proxy.invalid, asked as ****" in report.why
    defect = around.out / "cu121" / "defect.txt"
    assert defect.is_file() is (error is ZeroDivisionError)
    assert not any("s3cret" in path.read_text() for path in (around.out / "cu121").glob("*.txt"))
