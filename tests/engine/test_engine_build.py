"""Builds on a real engine, with BuildKit and with the classic builder."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.engine import BuildEvent, Engine, find, private, stream
from assay.errors import BuildFailed, Cancelled, EngineError, IngredientError

pytestmark = pytest.mark.engine


@pytest.fixture(params=["buildkit", "classic"])
def builder(request: pytest.FixtureRequest, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(engine, "buildkit", request.param == "buildkit")
    return engine


def context(folder: Path, dockerfile: str) -> Path:
    made = folder / "context"
    made.mkdir()
    (made / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    return made


def running(marker: str) -> bool:
    """Tell whether a process with `marker` in its command line runs anywhere on this machine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                    return True
            except OSError:
                continue
    return False


def comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds, and tell whether it came to that."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_an_image_is_built_named_labelled_and_logged(builder: Engine, base: str, name: str, tmp_path: Path) -> None:
    folder = context(
        tmp_path,
        f"# part: base\nFROM {base} AS one\n# part: torch\nRUN echo first; echo second >&2\nCOPY data /data\n"
        "FROM one\nRUN cat /data/file\n",
    )
    (folder / "data").mkdir()
    (folder / "data" / "file").write_text("from the context\n", encoding="utf-8")
    events: list[BuildEvent] = []
    image = builder.build(
        folder, tag=name, labels={"a": "b"}, no_cache=True, on_event=events.append, log=tmp_path / "log"
    )
    found = builder.inspect(name)
    assert (found.id, found.labels) == (image, {"a": "b"})
    lines = [event.line for event in events if event.line]
    assert {"first", "second", "from the context"} <= set(lines)
    assert all(word in (tmp_path / "log").read_text(encoding="utf-8") for word in ("RUN echo first", "second"))
    assert {event.status for event in events} >= {"started", "done"}


def test_a_second_build_comes_from_the_cache(builder: Engine, base: str, name: str, tmp_path: Path) -> None:
    folder = context(tmp_path, f"FROM {base}\nRUN echo cached-{name}\n")
    first = builder.build(folder, tag=name, log=tmp_path / "log")
    events: list[BuildEvent] = []
    assert builder.build(folder, tag=name, on_event=events.append, log=tmp_path / "log") == first
    assert [event.status for event in events if "RUN" in event.step][-1] == "cached"


@pytest.mark.parametrize(
    ("instruction", "part", "said"),
    [
        ("RUN echo before; echo the reason >&2; exit 3", "torch", "the reason"),
        ("COPY missing /there", "torch", "missing"),
        ("RUNN true", "torch", "unknown instruction"),
        ("ENV WORD=hello\nRUN echo $WORD $WORD; exit 4", "torch", "hello hello"),
    ],
)
def test_a_failed_step_names_its_part_and_shows_its_own_lines(
    builder: Engine, base: str, tmp_path: Path, instruction: str, part: str, said: str
) -> None:
    folder = context(tmp_path, f"# part: base\nFROM {base}\nRUN echo noise\n# part: torch\n{instruction}\n")
    with pytest.raises(BuildFailed) as caught:
        builder.build(folder, log=tmp_path / "log")
    assert caught.value.part == part
    assert any(said in line for line in caught.value.log)
    assert "noise" not in caught.value.log
    assert said in (tmp_path / "log").read_text(encoding="utf-8")


def test_of_parallel_stages_the_one_that_failed_is_named(engine: Engine, base: str, tmp_path: Path) -> None:
    folder = context(
        tmp_path,
        f"FROM {base} AS slow\n# part: slow\nRUN sleep 30\nFROM {base} AS quick\n# part: quick\nRUN sleep 1; exit 5\n"
        "FROM slow\nCOPY --from=quick /tmp /copied\n",
    )
    with pytest.raises(BuildFailed) as caught:
        engine.build(folder, log=tmp_path / "log", no_cache=True)
    assert caught.value.part == "quick"


def test_a_missing_base_image_is_not_a_failed_build(builder: Engine, tmp_path: Path) -> None:
    folder = context(tmp_path, "FROM assay-test/no-such-image:1\nRUN true\n")
    with pytest.raises(IngredientError, match=r"base image .*assay-test/no-such-image:1 could not be had"):
        builder.build(folder, log=tmp_path / "log")


def test_a_full_disk_is_the_engines_trouble(builder: Engine, base: str, tmp_path: Path) -> None:
    command = "dd if=/dev/zero of=/dev/full count=1"  # /dev/full answers every write as a full disk does
    folder = context(tmp_path, f"FROM {base}\nRUN {command}\n")
    with pytest.raises(EngineError, match="disk is full"):
        builder.build(folder, log=tmp_path / "log")


def test_a_cancelled_build_leaves_nothing_running(builder: Engine, base: str, tmp_path: Path) -> None:
    folder = context(tmp_path, f"FROM {base}\nRUN echo ready; sleep 86123\n")
    cancel = threading.Event()

    def stop_when_ready(event: BuildEvent) -> None:
        if event.line == "ready":
            # For a moment after a shell turned into its last command, that shows no words.
            assert comes_true(lambda: running("sleep 86123"), 5)
            cancel.set()

    with pytest.raises(Cancelled):
        builder.build(folder, cancel=cancel, on_event=stop_when_ready, log=tmp_path / "log", no_cache=True)
    assert comes_true(lambda: not running("sleep 86123"), 60)


def test_an_exception_in_the_reader_ends_the_build_too(engine: Engine, base: str, tmp_path: Path) -> None:
    folder = context(tmp_path, f"FROM {base}\nRUN echo ready; sleep 86124\n")

    def interrupt(event: BuildEvent) -> None:
        if event.line == "ready":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.build(folder, on_event=interrupt, log=tmp_path / "log", no_cache=True)
    assert comes_true(lambda: not running("sleep 86124"), 60)


def test_the_same_context_gives_the_same_image(engine: Engine, base: str, tmp_path: Path) -> None:
    images = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        folder = context(tmp_path / str(number), f"FROM {base}\nCOPY file /file\n")
        (folder / "file").write_text("same", encoding="utf-8")
        (folder / "file").touch(mode=0o600)
        images.append(engine.build(folder, log=tmp_path / "log"))
    assert images[0] == images[1]


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the SDK's, of a call that is refused
def test_an_engine_that_is_killed_ends_the_build_with_its_cause(private_engine: Engine, tmp_path: Path) -> None:
    folder = context(tmp_path, "FROM assay-test/tiny\nRUN echo ready; sleep 86125\n")
    killed: list[float] = []

    def kill(event: BuildEvent) -> None:
        if event.line == "ready":
            os.kill(int((private.folder() / "pid").read_text(encoding="utf-8")), signal.SIGKILL)
            killed.append(time.monotonic())

    with pytest.raises(EngineError, match="engine"):
        private_engine.build(folder, on_event=kill, log=tmp_path / "log")
    assert time.monotonic() - killed[0] < 20


def test_an_engine_that_stands_still_ends_the_build_too(
    private_engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stream, "PING_EVERY_SECONDS", 0.5)
    monkeypatch.setattr(stream, "PING_TIMEOUT_SECONDS", 1.0)
    folder = context(tmp_path, "FROM assay-test/tiny\nRUN echo ready; sleep 86126\n")
    daemon = int((private.folder() / "pid").read_text(encoding="utf-8"))

    def freeze(event: BuildEvent) -> None:
        if event.line == "ready":
            os.kill(daemon, signal.SIGSTOP)

    try:
        with pytest.raises(EngineError, match="no longer answers"):
            private_engine.build(folder, on_event=freeze, log=tmp_path / "log")
    finally:
        os.kill(daemon, signal.SIGCONT)


@pytest.mark.parametrize("what", ["build", "run"])
def test_silence_beyond_the_answer_timeout_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, base: str, tmp_path: Path, what: str
) -> None:
    monkeypatch.setattr(find, "ANSWER_TIMEOUT_SECONDS", 10)  # the time of every call, on a disk however busy
    engine = Engine.connect()
    if what == "build":
        folder = context(tmp_path, f"FROM {base}\nRUN sleep 15; echo over\n")
        assert engine.build(folder, no_cache=True, log=tmp_path / "log").startswith("sha256:")
    else:
        assert engine.run(base, ["sh", "-c", "sleep 15; echo over"], timeout=60).stdout_tail == ("over",)
    engine.close()
