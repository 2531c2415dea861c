"""What becomes of a row whose ready-made wheel cannot be had, up to where an engine would be needed."""

from __future__ import annotations

import functools
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console
from wheel_factory import fatbin, shared_object, wheel

from assay import checks, releases, row_run, wheels
from assay.compose.variables import WHEEL_LABEL
from assay.engine.images import Image
from assay.errors import BuildFailed, EngineError
from assay.files import file_sha256
from assay.findings import Level
from assay.matrix.row import FlashAttn, Row
from assay.network import NetworkSettings
from assay.progress import View
from assay.row_run import check_row, judge_row
from assay.surroundings import Surroundings
from assay.wheels import lean
from assay.wheels.wheelhouse import Store


class BaseImage:
    digest = "sha256:" + "b" * 64


class NoEngine:
    """Stands where an engine would: what it can do is known, and whoever asks it to do something fails."""

    version = "20.10.24"
    buildkit = True
    supports_copy_link = False


BASE = Image(id="sha256:base", tags=(), digests=(), size=1, layers=("sha256:a", "sha256:b"), labels={}, environment={})


class BuildsOnAnother:
    """An engine that holds the base, and whose images stand on some other one."""

    buildkit = True
    supports_copy_link = False
    version = "0"

    def __init__(self) -> None:
        self.built: list[dict[str, object]] = []
        self.labels: dict[str, str] = {}

    def find_image(self, reference: str) -> Image | None:
        return BASE

    def build(self, context: Path, **options: object) -> str:
        self.built.append(options)
        return "sha256:image"

    def inspect(self, reference: str) -> Image:
        return replace(BASE, id=reference, layers=("sha256:a", "sha256:other", "sha256:c"), labels=self.labels)


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


LEFT = ("certificate.json", "findings.json", "sample.png", "build.log")


def leave_an_earlier_verdict(around: Surroundings) -> Path:
    folder = around.out / "cu121"
    folder.mkdir(parents=True)
    for name in LEFT:
        (folder / name).write_text("of an earlier run")
    return folder


def test_what_an_earlier_verdict_left_is_gone_once_the_row_is_built_anew(
    tmp_path: Path, around: Surroundings, server: str
) -> None:
    folder = leave_an_earlier_verdict(around)
    made = wheel(tmp_path / "served", version="2.8.3+cu12torch2.4cxx11abiFALSE")
    judge_row(row(source="release", url=f"{server}/{made.name}", sha256=file_sha256(made)), around)
    assert not [name for name in LEFT if (folder / name).exists()]


def test_a_row_that_cannot_be_begun_keeps_its_certificate(around: Surroundings) -> None:
    """Without a wheel nothing is known of the row: the record may hold again when the network is back."""
    folder = leave_an_earlier_verdict(around)
    assert judge_row(row(source="wheelhouse"), around).verdict == "inconclusive"
    assert (folder / "certificate.json").exists()


def test_a_failed_build_leaves_its_finding_beside_its_log(
    tmp_path: Path, around: Surroundings, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BuildFailed(part="torch", step="RUN uv pip install", log=["no route to host"])

    monkeypatch.setattr(row_run.base, "ensure", lambda *_, **__: BaseImage())
    monkeypatch.setattr(row_run, "build", fail)
    folder = leave_an_earlier_verdict(around)
    made = wheel(tmp_path / "served", version="2.8.3+cu12torch2.4cxx11abiFALSE")
    report = judge_row(row(source="release", url=f"{server}/{made.name}", sha256=file_sha256(made)), around)
    (finding,) = json.loads((folder / "findings.json").read_text())
    assert (finding["check"], finding["status"]) == ("build.torch", "failed")
    assert [one.check for one in report.findings] == ["build.torch"]


def test_a_wheelhouse_without_a_wheel_that_fits_says_why_not(tmp_path: Path, around: Surroundings) -> None:
    wheel(tmp_path / "house", library=shared_object(device_code=fatbin(["90"])))
    report = judge_row(row(source="wheelhouse"), around)
    assert report.verdict == "inconclusive"
    assert "holds no machine code for sm_80 (it holds sm_90)" in report.why


def test_an_image_on_another_base_than_the_one_on_record_is_not_judged(around: Surroundings) -> None:
    """Somebody may give the base's name to another image between the look at it and the build."""
    engine = BuildsOnAnother()
    report = judge_row(row(source="none"), replace(around, engine=engine))  # type: ignore[arg-type]
    assert [options["build_args"] for options in engine.built] == [{"BASE": "localhost/assay/debian:bookworm"}]
    assert report.verdict == "inconclusive"
    assert "built on another base than localhost/assay/debian:bookworm (sha256:base)" in report.why
    assert report.why.endswith(": run again")
    assert not (around.out / "cu121" / "certificate.json").exists()


def test_a_base_whose_tag_may_have_moved_on_is_not_just_tried_again(around: Surroundings) -> None:
    """An engine that asks the registry at every build would build on the other one every time."""
    engine = BuildsOnAnother()
    moving, fixed = (
        judge_row(replace(row(source="none"), base=ref), replace(around, engine=engine))  # type: ignore[arg-type]
        for ref in ("my/torch:latest", f"my/torch:latest@sha256:{'1' * 64}")
    )
    assert "built on another base than my/torch:latest (sha256:base)" in moving.why
    assert "run `docker pull my/torch:latest` and then this again" in moving.why
    assert 'base = "my/torch:latest@sha256:..."' in moving.why
    assert "docker pull" not in fixed.why
    assert fixed.why.endswith(": run again")


def test_the_wheel_of_a_base_that_brings_torch_is_known_from_what_the_engine_holds(
    tmp_path: Path, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "house").mkdir()
    asked = replace(row(source="compile"), torch="base", base="my/torch:latest", runtime="none")
    recipe = lean.recipe(asked, BASE.id)
    made = wheel(tmp_path / "made", version=recipe.version)
    kept = Store(tmp_path / "state" / "wheelhouse").add(
        str(recipe.key()), made, source="compile", record=recipe.record()
    )
    engine = BuildsOnAnother()
    engine.labels = {WHEEL_LABEL: kept.sha256}
    seen: list[wheels.Wheel | None] = []
    monkeypatch.setattr(row_run, "_recorded", lambda _row, _composed, wheel, _around: seen.append(wheel))
    monkeypatch.setattr(row_run, "run_checks", lambda _row, _image, wheel, _around: seen.append(wheel) or [])
    judge_row(asked, replace(around, engine=engine))  # type: ignore[arg-type]
    check_row("my/image", asked, replace(around, engine=engine))  # type: ignore[arg-type]
    assert seen == [kept, kept]


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
