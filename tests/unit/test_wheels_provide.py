"""Getting the wheel of a row by the first way that leads to one, without an engine."""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from wheel_factory import fatbin, shared_object, wheel

from assay import wheels
from assay.engine.events import BuildEvent
from assay.engine.images import Image
from assay.errors import IngredientError
from assay.matrix.row import FlashAttn, Row
from assay.network import NetworkSettings
from assay.wheels import lean
from assay.wheels import wheel as wheel_file
from assay.wheels.wheelhouse import Store

ROW = Row(id="cu121", expect="certify")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep wheels in a folder of the test's own."""
    folder = tmp_path / "state"
    monkeypatch.setenv("ASSAY_STATE", str(folder))
    return folder


def asked(**changes: Any) -> Row:
    """Return the row with another flash-attn."""
    return replace(ROW, flash_attn=replace(FlashAttn(), **changes))


def provide(row: Row, folders: list[Path], tmp_path: Path) -> tuple[wheels.Wheel | None, list[str]]:
    """Get a wheel where nothing needs an engine, and return it with the lines that were told."""
    told: list[BuildEvent] = []
    got = wheels.provide(
        row,
        engine=None,  # type: ignore[arg-type] - whoever reaches for it fails
        wheelhouses=folders,
        network=None,  # type: ignore[arg-type]
        out=tmp_path / "out",
        on_event=told.append,
    )
    return got, [event.line for event in told if event.line]


def test_a_wheel_of_the_wheelhouse_is_taken_as_it_lies_there(tmp_path: Path) -> None:
    path = wheel(tmp_path / "house")
    got, told = provide(ROW, [tmp_path / "house"], tmp_path)
    assert got is not None
    assert (got.path, got.source, got.version, got.archs) == (path, "wheelhouse", "2.8.3", ("80",))
    assert told == [f"{path.name} from wheelhouse, sha256 {got.sha256}"]


def test_what_lookup_finds_is_what_provide_returns(tmp_path: Path) -> None:
    wheel(tmp_path / "house")
    got, _ = provide(ROW, [tmp_path / "house"], tmp_path)
    assert wheels.lookup(ROW, wheelhouses=[tmp_path / "house"]) == got


@pytest.mark.parametrize("source", ["none", "base"])
def test_a_row_without_a_wheel_gets_none(tmp_path: Path, source: str) -> None:
    wheel(tmp_path / "house")
    assert provide(asked(source=source), [tmp_path / "house"], tmp_path) == (None, [])


def test_when_nothing_fits_every_reason_is_given_and_what_to_do(tmp_path: Path) -> None:
    wheel(tmp_path / "house", library=shared_object(device_code=fatbin(["90"])))
    with pytest.raises(IngredientError) as caught:
        provide(asked(source="wheelhouse"), [tmp_path / "house"], tmp_path)
    message = str(caught.value)
    assert "row cu121: no flash-attn 2.8.3 wheel fits it" in message
    assert "holds no machine code for sm_80 (it holds sm_90)" in message
    assert "--wheelhouse" in message


def test_an_empty_wheelhouse_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    with pytest.raises(IngredientError, match=f"no flash-attn wheel there .{tmp_path}/house"):
        provide(asked(source="wheelhouse"), [tmp_path / "house"], tmp_path)


@pytest.mark.parametrize("source", ["compile", "skip-cuda"])
def test_a_wheel_that_was_built_before_needs_no_engine(tmp_path: Path, state: Path, source: str) -> None:
    row = asked(source=source)
    recipe = lean.recipe(row)
    made = wheel(tmp_path / "made", version=recipe.version, library=b"" if source == "skip-cuda" else None)
    Store(state / "wheelhouse").add(recipe.key(), made, source=source, record=recipe.record())
    got, _ = provide(row, [], tmp_path)
    assert got is not None
    assert got.source == source
    assert got.record["sdist_sha256"] == recipe.sdist_sha256
    assert got.compiler == (None if source == "skip-cuda" else "nvcc 12.4.131")
    assert wheels.lookup(row, wheelhouses=[]) == got
    assert wheels.lookup(asked(source=source, version="2.8.3", head_dims=(32,)), wheelhouses=[]) == (
        got if source == "skip-cuda" else None
    )


class Holds:
    """An engine that holds one image under every name, None where it holds nothing, and builds nothing."""

    def __init__(self, digest: str | None) -> None:
        self.digest = digest

    def find_image(self, reference: str) -> Image | None:
        if self.digest is None:
            return None
        name = reference.partition(":")[0]
        return Image(
            id="sha256:0",
            tags=(reference,),
            digests=(f"{name}@{self.digest}",),
            size=1,
            layers=(),
            labels={},
            environment={},
        )


ON_BASE = replace(ROW, torch="base", base="my/torch:latest")


def made_on(row: Row, digest: str, tmp_path: Path, store: Store) -> None:
    recipe = lean.recipe(row, digest)
    key = recipe.key()
    assert key is not None
    store.add(key, wheel(tmp_path / "made", version=recipe.version), source="compile", record=recipe.record())


@pytest.mark.parametrize("source", ["auto", "compile"])
@pytest.mark.parametrize("where", ["store", "wheelhouse"])
def test_a_wheel_against_the_bases_torch_is_found_only_while_the_base_is_that_image(
    tmp_path: Path, state: Path, where: str, source: str
) -> None:
    row = replace(ON_BASE, flash_attn=FlashAttn(source=source))  # type: ignore[arg-type]
    store = Store(state / "wheelhouse" if where == "store" else tmp_path / "other")
    made_on(row, "sha256:1", tmp_path, store)
    houses = [*(tmp_path / "other").glob("*")]

    def found(row: Row, digest: str | None) -> bool:
        engine: Any = Holds(digest)
        made = wheels.made_for(row, houses, engine=engine)
        looked_up = wheels.lookup(row, wheelhouses=houses, engine=engine)
        assert where == "store" or made == looked_up
        return looked_up is not None

    assert found(row, "sha256:1")
    assert not found(row, "sha256:2")
    assert not found(row, None)
    assert wheels.lookup(row, wheelhouses=houses) is None, "no engine is asked"
    pinned = replace(row, base="my/torch@sha256:1")
    made_on(pinned, "sha256:1", tmp_path, store)
    houses = [*(tmp_path / "other").glob("*")]
    assert wheels.lookup(pinned, wheelhouses=houses) is not None, "the row itself says which image it is"
    assert wheels.lookup(replace(row, base="my/torch@sha256:2"), wheelhouses=houses) is None


def test_nothing_is_compiled_against_a_torch_that_nobody_can_name(tmp_path: Path) -> None:
    with pytest.raises(IngredientError, match="compile: the engine does not hold my/torch:latest"):
        wheels.provide(
            ON_BASE,
            engine=Holds(None),  # type: ignore[arg-type]
            wheelhouses=[],
            network=NetworkSettings(),
            out=tmp_path,
            on_event=lambda _event: None,
        )


def test_a_release_that_was_fetched_before_is_not_fetched_again(tmp_path: Path, state: Path) -> None:
    made = wheel(tmp_path / "made", version="2.8.3+cu12torch2.4cxx11abiFALSE")
    sha256 = wheel_file.file_sha256(made)
    Store(state / "wheelhouse").add(sha256, made, source="release", record={})
    row = asked(source="release", url=f"http://127.0.0.1:9/{made.name}", sha256=sha256)
    got, _ = provide(row, [], tmp_path)
    assert got is not None
    assert (got.source, got.sha256) == ("release", sha256)


def test_a_release_is_fetched_verified_and_kept(tmp_path: Path, state: Path) -> None:
    made = wheel(tmp_path / "served", version="2.8.3+cu12torch2.4cxx11abiFALSE")
    sha256 = wheel_file.file_sha256(made)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(made.parent))
    told: list[BuildEvent] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        row = asked(url=f"http://127.0.0.1:{server.server_port}/{made.name.replace('+', '%2B')}", sha256=sha256)
        got = wheels.provide(
            row,
            engine=object(),  # type: ignore[arg-type] - a release needs none, but that it is there allows fetching
            wheelhouses=[],
            network=NetworkSettings(),
            out=tmp_path,
            on_event=told.append,
        )
        server.shutdown()
    assert got is not None
    assert (got.source, got.sha256, got.path.parent) == ("release", sha256, state / "wheelhouse" / sha256)
    assert got.record["url"] == row.flash_attn.url
    assert any(event.current_bytes == event.total_bytes == made.stat().st_size for event in told)
    assert wheels.lookup(row, wheelhouses=[]) == got


def test_a_release_without_its_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngredientError, match="not both given"):
        provide(asked(source="release", url="http://127.0.0.1:9/x.whl"), [], tmp_path)


def test_lookup_answers_nothing_where_something_would_be_fetched_or_built_first(tmp_path: Path) -> None:
    row = asked(url="http://127.0.0.1:9/x.whl", sha256="0" * 64)
    assert wheels.lookup(row, wheelhouses=[]) is None
    assert wheels.lookup(ROW, wheelhouses=[]) is None


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path, state: Path) -> None:
    state.write_text("a file where the folder should be")
    row = asked(source="release", url="http://127.0.0.1:9/x.whl", sha256="0" * 64)
    with pytest.raises(IngredientError, match=f"cannot keep the wheel in {state}/wheelhouse.*ASSAY_STATE"):
        wheels.provide(
            row,
            engine=object(),  # type: ignore[arg-type] - a release needs none, but says that fetching is allowed
            wheelhouses=[],
            network=None,  # type: ignore[arg-type]
            out=tmp_path,
            on_event=lambda _event: None,
        )
