"""BuildKit's progress: decoded, turned into events and a log, and the failed step found."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.engine import build
from assay.engine.build import failure
from assay.engine.classic import ClassicProgress
from assay.engine.events import BuildEvent
from assay.engine.progress import Progress
from assay.engine.trace import Trace, Vertex, VertexLog, VertexStatus, decode
from assay.errors import AssayError, BuildFailed, EngineError, IngredientError
from assay.redact import without_passwords

# The answer of Docker Engine 20.10.24 to a build of two steps, the second of which prints two lines and exits with 3.
RECORDED = Path(__file__).parent / "data" / "buildkit-failed-step.jsonl"
DOCKERFILE = "# part: base\nFROM assay-engine-test/tiny\n# part: torch\nRUN echo one; echo two >&2; exit 3\n"


def recorded() -> list[Trace]:
    messages = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    return [decode(base64.b64decode(entry["aux"])) for entry in messages if entry.get("id") == "moby.buildkit.trace"]


def progress_of(traces: list[Trace]) -> tuple[Progress, list[BuildEvent], str]:
    events: list[BuildEvent] = []
    log = io.StringIO()
    progress = Progress(events.append, log)
    for trace in traces:
        progress.feed(trace)
    return progress, events, log.getvalue()


def test_a_recorded_build_is_decoded() -> None:
    vertexes = [vertex for trace in recorded() for vertex in trace.vertexes]
    assert {vertex.name for vertex in vertexes} >= {
        "[internal] load remote build context",
        "[2/2] RUN echo one; echo two >&2; exit 3",
    }
    assert all(vertex.started is None or vertex.started > 1.7e9 for vertex in vertexes)
    assert b"".join(log.message for trace in recorded() for log in trace.logs) == b"one\ntwo\n"


def test_the_failed_step_is_found_with_its_lines() -> None:
    progress, events, log = progress_of(recorded())
    assert progress.failed is not None
    assert progress.failed.name == "[2/2] RUN echo one; echo two >&2; exit 3"
    assert list(progress.failed.tail) == ["one", "two"]
    assert [event.status for event in events if "exit 3" in event.step][-1] == "error"
    assert "exit code: 3" in log
    assert progress.running == []


def vertex(name: str, **values: object) -> Vertex:
    return Vertex(digest=f"sha256:{name}", name=name, **values)  # type: ignore[arg-type]


def test_the_step_that_failed_first_counts_not_those_stopped_because_of_it() -> None:
    progress, _, _ = progress_of(
        [
            Trace(vertexes=(vertex("slow", started=1.0), vertex("quick", started=1.0))),
            Trace(vertexes=(vertex("slow", started=1.0, completed=2.0, error="process: context canceled"),)),
            Trace(vertexes=(vertex("quick", started=1.0, completed=2.0, error="exit code: 5"),)),
        ]
    )
    assert progress.failed is not None
    assert progress.failed.name == "quick"


def test_a_step_that_was_looked_up_in_the_cache_first_may_still_fail() -> None:
    progress, events, _ = progress_of(
        [
            Trace(vertexes=(vertex("run", started=1.0, completed=1.1),)),
            Trace(vertexes=(vertex("run", started=2.0),)),
            Trace(vertexes=(vertex("run", started=2.0, completed=5.0, error="exit code: 1"),)),
        ]
    )
    assert progress.failed is not None
    assert events[-1] == BuildEvent(step="run", status="error", seconds=3.0)


def test_lines_cut_between_messages_are_joined_and_the_last_one_is_kept() -> None:
    _, events, log = progress_of(
        [
            Trace(vertexes=(vertex("run", started=1.0),)),
            Trace(logs=(VertexLog(vertex="sha256:run", timestamp=1.5, message=b"he"),)),
            Trace(logs=(VertexLog(vertex="sha256:run", timestamp=2.0, message=b"llo\nlast"),)),
            Trace(vertexes=(vertex("run", started=1.0, completed=3.0),)),
        ]
    )
    assert [event.line for event in events if event.line] == ["hello", "last"]
    assert "#1 1.000 hello\n#1 2.000 last\n#1 DONE 2.0s\n" in log


def test_bytes_of_a_transfer_reach_the_event() -> None:
    _, events, _ = progress_of(
        [
            Trace(vertexes=(vertex("pull", started=1.0),)),
            Trace(statuses=(VertexStatus(id="layer", vertex="sha256:pull", current=5, total=10, timestamp=4.0),)),
        ]
    )
    assert events[-1] == BuildEvent(
        step="pull", status="progress", seconds=3.0, item="layer", current_bytes=5, total_bytes=10
    )


def test_unknown_fields_are_skipped_and_broken_bytes_are_refused() -> None:
    known = b"\x0a\x07\x1a\x05hello"  # vertexes { name: "hello" }
    unknown = b"\x22\x02hi" + b"\x78\x01" + b"\x7d\x00\x00\x00\x00"  # field 4 bytes, field 15 varint, field 15 fixed32
    assert decode(unknown + known).vertexes == (Vertex(name="hello"),)
    with pytest.raises(ValueError, match="past the end"):
        decode(b"\x0a\xff\x01x")
    with pytest.raises(ValueError, match="wire type"):
        decode(b"\x0b")


@given(st.binary(max_size=200))
def test_any_bytes_are_either_decoded_or_refused(data: bytes) -> None:
    try:
        decoded = decode(data)
    except ValueError:
        return
    assert isinstance(decoded, Trace)


def test_the_classic_builders_text_becomes_the_same_events() -> None:
    events: list[BuildEvent] = []
    moments = iter(range(100))
    progress = ClassicProgress(events.append, io.StringIO(), clock=lambda: float(next(moments)))
    for text in (
        "Step 1/2 : FROM x\n",
        " ---> 0123456789ab\n",
        "Step 2/2 : RUN y\n ---> Running in 42\n",
        "pri",
        "nted\n\x1b[91mred\x1b[0m\n",
    ):
        progress.feed({"stream": text})
    progress.finish("non-zero code: 1")
    assert [(event.step, event.status, event.line) for event in events] == [
        ("Step 1/2 : FROM x", "started", None),
        ("Step 1/2 : FROM x", "done", None),
        ("Step 2/2 : RUN y", "started", None),
        ("Step 2/2 : RUN y", "progress", "printed"),
        ("Step 2/2 : RUN y", "progress", "red"),
        ("Step 2/2 : RUN y", "error", None),
    ]
    assert list(progress.tail) == ["printed", "red"]


PASSWORD_LINE = "GET https://bob:s3cret@index.invalid/simple as s3cret-token"


def mask(text: str) -> str:
    return without_passwords(text, ["s3cret-token"])


def test_passwords_reach_neither_log_nor_events_nor_the_evidence() -> None:
    seen = "GET https://****@index.invalid/simple as ****"
    for made in (buildkit_build, classic_build):
        events: list[BuildEvent] = []
        log = io.StringIO()
        tail, error = made(events, log)
        assert tail == [seen]
        assert seen in log.getvalue()
        assert seen in [event.line for event in events]
        assert "s3cret" not in f"{log.getvalue()}{events}{error}"


def buildkit_build(events: list[BuildEvent], log: io.StringIO) -> tuple[list[str], str]:
    progress = Progress(events.append, log, mask)
    progress.feed(Trace(vertexes=(vertex("x", started=1.0),)))
    for piece in (PASSWORD_LINE[:15], PASSWORD_LINE[15:] + "\n"):  # a line may come in pieces
        progress.feed(Trace(logs=(VertexLog(vertex="sha256:x", message=piece.encode(), timestamp=1.5),)))
    progress.feed(Trace(vertexes=(vertex("x", started=1.0, completed=2.0, error=PASSWORD_LINE),)))
    assert progress.failed is not None
    return list(progress.failed.tail), progress.failed.error


def classic_build(events: list[BuildEvent], log: io.StringIO) -> tuple[list[str], str]:
    progress = ClassicProgress(events.append, log, mask=mask)
    for piece in ("Step 1/1 : RUN x\n", PASSWORD_LINE[:15], PASSWORD_LINE[15:] + "\n"):
        progress.feed({"stream": piece})
    return list(progress.tail), ""


@pytest.mark.parametrize("buildkit", [True, False])
def test_a_failed_build_says_why_without_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buildkit: bool
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    answer = [{"stream": f"Step 2/2 : RUN echo\n{PASSWORD_LINE}\n"}, {"error": f"{PASSWORD_LINE}: exit code: 1"}]
    monkeypatch.setattr(build, "build_stream", lambda *_: contextlib.nullcontext(iter(answer)))
    with pytest.raises(BuildFailed) as caught:
        build.build(
            None,  # type: ignore[arg-type] - the answer is there already
            tmp_path,
            buildkit=buildkit,
            dockerfile="Dockerfile",
            tag=None,
            target=None,
            labels={},
            build_args={},
            network=None,
            no_cache=False,
            cancel=None,
            on_event=lambda _event: None,
            log=tmp_path / "log",
            mask=mask,
        )
    assert any("****@index.invalid" in line for line in caught.value.log)
    assert "s3cret" not in f"{caught.value.log}{(tmp_path / 'log').read_text()}"


NO_SPACE = "OSError: [Errno 28] No space left on device"


@pytest.mark.parametrize(
    ("step", "said", "tail", "kind"),
    [
        ("[2/2] RUN echo", "executor failed running [/bin/sh -c x]: exit code: 3", ["why"], BuildFailed),
        ("[2/2] RUN echo", 'process "x" did not complete: exit code: 1', [NO_SPACE], EngineError),
        ("[2/2] COPY a /b", '"/a" not found: not found', [], BuildFailed),
        ("[2/2] RUN echo", "rpc error: code = Unavailable desc = transport is closing", [], EngineError),
        ("[2/2] RUN transport is closing", 'process "transport is closing": exit code: 1', [], BuildFailed),
        ("[linux/amd64 2/2] RUN echo", "exit code: 3", ["why"], BuildFailed),
        ("[internal] load remote build context", 'Get "http://build-context-x": no such host', [], EngineError),
        ("[internal] settings cache mount permissions", "mkdir /x: not a directory", [], EngineError),
        ("copy /context /", "lchown: operation not permitted", [], EngineError),
        ("exporting to image", "unexpected end of JSON input", [], EngineError),
        ("resolve image config for docker-image://docker.io/docker/dockerfile:1", "no such host", [], IngredientError),
        ("resolve image config for docker.io/docker/dockerfile:1", "no such host", [], IngredientError),
        ("exporting to image", "failed to register layer: write /x: no space left on device", [], EngineError),
        ("[internal] load metadata for docker.io/library/none:1", "pull access denied", [], IngredientError),
        ("[base 1/3] FROM docker.io/library/x@sha256:00", "failed to copy: EOF", [], IngredientError),
        ("Step 1/2 : FROM none:1", "manifest unknown", [], IngredientError),
        ("", "dockerfile parse error line 4: unknown instruction: RUNN", [], BuildFailed),
    ],
)  # fmt: skip
def test_a_failure_is_laid_at_the_right_door(step: str, said: str, tail: list[str], kind: type[AssayError]) -> None:
    error = failure(said, step=step, step_error=said if step else "", tail=tail, dockerfile_text=DOCKERFILE)
    assert type(error) is kind
    if isinstance(error, BuildFailed):
        assert error.part == "torch"
        assert error.log[-1] == said


def test_an_engine_that_loses_the_context_is_told_from_a_dockerfile_that_fails() -> None:
    error = failure(
        'failed to read downloaded context: failed to load cache key: Get "http://build-context-x": no such host',
        step="[internal] load remote build context",
        step_error='Get "http://build-context-x": no such host',
        tail=[],
        dockerfile_text=DOCKERFILE,
    )
    assert type(error) is EngineError
    assert "containerd-snapshotter" in str(error)
