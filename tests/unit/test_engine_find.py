"""Where an engine is looked for, what it can do, and what is said when there is none."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from assay.engine import find, owner, private
from assay.errors import EngineError, ExitCode


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No engine, no Docker configuration and no state of this machine in sight."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_BUILDKIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(find, "DEFAULT_HOST", f"unix://{tmp_path}/none.sock")


def test_docker_host_comes_first_and_alone() -> None:
    assert [entry.host for entry in find.candidates({"DOCKER_HOST": "unix:///x.sock"})] == ["unix:///x.sock"]


def test_the_current_context_comes_next(tmp_path: Path) -> None:
    folder = tmp_path / "docker" / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    folder.mkdir(parents=True)
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"currentContext": "far"}), encoding="utf-8")
    meta = {
        "Name": "far",
        "Metadata": {},
        "Endpoints": {"docker": {"Host": "unix:///far.sock", "SkipTLSVerify": False}},
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    found = [(entry.host, entry.origin, entry.named) for entry in find.candidates({})]
    assert found == [("unix:///far.sock", "context", True)]


def test_the_private_engine_comes_last(tmp_path: Path) -> None:
    assert [entry.origin for entry in find.candidates({})] == ["default"]
    private.folder().mkdir(parents=True)
    private.socket_path().touch()
    assert [entry.origin for entry in find.candidates({})] == ["default", "private"]


@pytest.mark.parametrize(
    "host", ["nonsense", "tcp://", "tcp://[::1", "tcp://x:99999", "tcp://x:y", "http://", "ssh://"]
)
def test_a_name_that_can_be_no_address_is_said_to_be_the_trouble(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(EngineError, match="which the environment variable DOCKER_HOST names"):
        find.find(start=True, say=lambda line: None)


def test_a_named_engine_that_does_not_answer_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/gone.sock")
    with pytest.raises(
        EngineError, match=r"gone\.sock, which the environment variable DOCKER_HOST names: No such file"
    ):
        find.find(start=True, say=lambda line: None)


def test_no_engine_and_no_root_gives_the_command_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/usr/bin/{name}" if name == "apt-get" else None)
    with pytest.raises(EngineError, match=r"sudo apt-get install -y docker\.io && sudo usermod -aG docker") as caught:
        find.find(start=True, say=lambda line: None)
    assert caught.value.code is ExitCode.INCONCLUSIVE
    assert "No such file or directory" in str(caught.value)


def test_another_system_gets_another_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, **_: None)
    with pytest.raises(EngineError, match="systemctl start docker"):
        find.find(start=True, say=lambda line: None)


def test_nothing_is_started_unless_allowed() -> None:
    with pytest.raises(EngineError, match="no Docker engine answers"):
        find.find(start=False, say=lambda line: None)
    assert not private.folder().exists()


def test_a_closed_socket_and_a_refused_one_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "dead.sock"))
    monkeypatch.setattr(find, "DEFAULT_HOST", f"unix://{tmp_path}/dead.sock")
    with pytest.raises(EngineError, match="Connection refused"):
        find.find(start=False, say=lambda line: None)


ENGINE = {"Os": "linux", "ApiVersion": "1.41", "Components": [{"Name": "Engine"}, {"Name": "containerd"}]}


@pytest.mark.parametrize(
    ("version", "environment", "buildkit"),
    [
        (ENGINE, {}, True),
        (ENGINE, {"DOCKER_BUILDKIT": "1"}, True),
        (ENGINE, {"DOCKER_BUILDKIT": "0"}, False),
        ({**ENGINE, "ApiVersion": "1.38"}, {}, False),
        ({**ENGINE, "Os": "windows"}, {}, False),
        ({**ENGINE, "Components": [{"Name": "Podman Engine"}]}, {}, False),
    ],
)
def test_buildkit_is_used_where_it_is(version: dict[str, object], environment: dict[str, str], buildkit: bool) -> None:
    assert find.supports_buildkit(version, environment) is buildkit


def test_a_mark_tells_whether_its_process_is_gone() -> None:
    assert not owner.is_left_behind(owner.owner())
    gone = subprocess.run(
        [sys.executable, "-c", "from assay.engine import owner; print(owner.owner())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert owner.is_left_behind(gone)
    host, boot, pid, started = owner.owner().split("/")
    assert owner.is_left_behind(f"{host}/{boot}/{pid}/1")  # the process id was given to another process since
    assert owner.is_left_behind(f"{host}/other-boot/{pid}/{started}")
    assert not owner.is_left_behind(f"another-host/{boot}/{pid}/1")
    assert not owner.is_left_behind("written by somebody else")


@pytest.mark.parametrize("named", [True, False])
def test_an_engine_that_this_user_may_not_use_is_no_reason_to_install_one(
    named: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(candidate: find.Candidate) -> find.Connection:
        raise PermissionError(13, "Permission denied", candidate.host)

    monkeypatch.setattr(find, "_connect", refuse)
    if named:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(EngineError, match=r"Permission denied.*usermod -aG docker") as raised:
        find.find(start=False, say=lambda line: None)
    assert "install" not in str(raised.value)


def test_a_state_folder_of_root_hides_its_private_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", closed)
    assert not private.in_sight()


def test_an_engine_that_takes_its_time_is_waited_for_aloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(find, "ANSWER_TIMEOUT_SECONDS", 30)
    monkeypatch.setattr(find, "SILENT_SECONDS", 0.05)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mute.sock")
    said: list[str] = []
    heard = threading.Event()

    class SilentUntilHeard(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.wait(30)

    def say(line: str) -> None:
        said.append(line)
        heard.set()

    with socketserver.ThreadingUnixStreamServer(f"{tmp_path}/mute.sock", SilentUntilHeard) as mute:
        threading.Thread(target=mute.serve_forever, args=(0.05,)).start()
        with pytest.raises(EngineError, match="no Docker engine answers at"):
            find.find(start=False, say=say)
        mute.shutdown()
    assert said == [f"waiting for the Docker engine at unix://{tmp_path}/mute.sock, for 30 s at most"]
