"""The private engine: started, shared, stopped, and what is left when it crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assay.engine import Engine, bridge, leftovers, private
from assay.errors import EngineError

pytestmark = [
    pytest.mark.engine,
    # These tests end engines under the SDK's feet, and it leaves the socket of a call that a dead engine refuses to the
    # garbage collector, which may come by in the middle of a test. The fixture `state` collects what is left.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def test_it_runs_builds_and_outlives_the_run_that_started_it(private_engine: Engine, tmp_path: Path) -> None:
    assert private_engine.private
    assert private_engine.host == private.host()
    (tmp_path / "Dockerfile").write_text("FROM assay-test/tiny\nRUN echo built\n", encoding="utf-8")
    image = private_engine.build(tmp_path, log=tmp_path / "log")
    assert private_engine.run(image, ["echo", "ran"], timeout=30).stdout_tail == ("ran",)
    assert leftovers.daemon(private.folder()) is not None
    status = Path(f"/proc/{leftovers.daemon(private.folder())}/status").read_text(encoding="utf-8")
    assert f"PPid:\t{os.getpid()}\n" not in status


def test_another_run_uses_the_same_one(private_engine: Engine) -> None:
    first = leftovers.daemon(private.folder())
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", "from assay.engine import private; private.start()"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for run in runs:
        _, said = run.communicate(timeout=60)
        assert run.returncode == 0
        assert "starting a private one" not in said
    assert leftovers.daemon(private.folder()) == first


def test_stop_ends_it_and_its_containers_and_start_finds_its_images_again(private_engine: Engine) -> None:
    private_engine.client.containers.run("assay-test/tiny", ["sleep", "86300"], detach=True, network_mode="none")
    assert private.stop()
    assert not any("86300" in leftovers._command(pid) for pid in leftovers._pids())
    assert leftovers._mounts(private.folder()) == []
    assert not private.stop()
    again = Engine.connect()
    assert again.find_image("assay-test/tiny") is not None
    again.close()


def test_after_a_crash_nothing_of_it_runs_on_and_the_next_start_works(private_engine: Engine) -> None:
    private_engine.client.containers.run("assay-test/tiny", ["sleep", "86301"], detach=True, network_mode="none")
    private_engine.close()
    daemon = leftovers.daemon(private.folder())
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    assert leftovers.wait_for_end(daemon, 10)
    again = Engine.connect()
    assert again.private
    assert not any("86301" in leftovers._command(pid) for pid in leftovers._pids())
    again.close()


def test_one_that_cannot_start_shows_its_last_words(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setattr(private, "_configuration", lambda home: {"data-root": "/proc/none", "hosts": [private.host()]})
    with pytest.raises(EngineError, match="/proc/none"):
        private.start(lambda line: None)


def test_a_path_too_long_for_sockets_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path / ("x" * 80)))
    with pytest.raises(EngineError, match="ASSAY_STATE"):
        private.start(lambda line: None)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network device")
def test_another_engines_bridge_stays(state: Path) -> None:
    if bridge._exists(bridge.DEFAULT_BRIDGE):
        pytest.skip("this machine has a docker0 of its own")
    bridge._request(bridge.SIOCBRADDBR, bridge.DEFAULT_BRIDGE)
    try:
        private.start(lambda line: None)
        assert bridge._exists(bridge.DEFAULT_BRIDGE)
        assert private.stop()
        assert bridge._exists(bridge.DEFAULT_BRIDGE)
        assert not bridge._exists(bridge.OWN_BRIDGE)
    finally:
        bridge._request(bridge.SIOCBRDELBR, bridge.DEFAULT_BRIDGE)
