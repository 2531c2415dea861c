"""Hardened containers on a real engine."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from assay.engine import Engine, GpuAccess, HostGpu, Mount
from assay.engine.owner import LABEL
from assay.errors import Cancelled, IngredientError

pytestmark = pytest.mark.engine
MIB = 1 << 20


def own_containers(engine: Engine, image: str) -> list[str]:
    return [entry["Id"] for entry in engine.api.containers(all=True, filters={"label": LABEL, "ancestor": image})]


def test_output_comes_live_and_the_exit_code_is_told(engine: Engine, base: str, tmp_path: Path) -> None:
    def answer(line: str) -> None:
        if line == "one":
            (tmp_path / "heard").touch()

    # The container goes on only when its first line was heard.
    result = engine.run(
        base,
        ["sh", "-c", "echo one; echo problem >&2; while [ ! -e /io/heard ]; do sleep 0.1; done; echo two; exit 3"],
        mounts=[Mount(source=tmp_path, target="/io")],
        timeout=60,
        on_line=answer,
    )
    assert (result.exit_code, result.timed_out, result.oom_killed) == (3, False, False)
    assert (result.stdout_tail, result.stderr_tail) == (("one", "two"), ("problem",))
    assert own_containers(engine, base) == []


def test_it_has_no_network_no_capabilities_and_a_read_only_root(engine: Engine, base: str) -> None:
    script = "cat /proc/self/status; ls /sys/class/net; touch /x; touch /tmp/y && echo tmp-is-writable; env"
    result = engine.run(base, ["sh", "-c", script], timeout=30, environment={"WORD": "hello"})
    lines = result.stdout_tail
    assert "CapEff:\t0000000000000000" in lines
    assert "CapBnd:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines
    assert "tmp-is-writable" in lines
    assert "WORD=hello" in lines
    assert "lo" in lines
    assert not any(line.startswith(("eth", "en")) for line in lines)
    assert any("Read-only file system" in line for line in result.stderr_tail)


def test_an_images_own_health_check_does_not_run_beside_the_command(engine: Engine, base: str) -> None:
    changes = ["HEALTHCHECK --interval=1s CMD touch /tmp/asked"]
    container = engine.api.create_container(base, ["true"])["Id"]
    try:
        image = engine.api.commit(container, "assay-test/healthcheck", "latest", changes=changes)["Id"]
    finally:
        engine.api.remove_container(container)
    assert engine.api.inspect_image(image)["Config"]["Healthcheck"]["Test"] == ["CMD-SHELL", "touch /tmp/asked"]
    result = engine.run(image, ["sh", "-c", "sleep 3; ls /tmp; echo end"], timeout=30)
    assert result.stdout_tail == ("end",)


def test_mounts_are_read_only_unless_asked_for(engine: Engine, base: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "file").write_text("hello\n", encoding="utf-8")
    mounts = [
        Mount(source=tmp_path / "in", target="/in"),
        Mount(source=tmp_path / "out", target="/out", read_only=False),
    ]
    result = engine.run(base, ["sh", "-c", "cat /in/file; touch /in/x; echo made >/out/y"], mounts=mounts, timeout=30)
    assert result.stdout_tail == ("hello",)
    assert not (tmp_path / "in" / "x").exists()
    assert (tmp_path / "out" / "y").read_text(encoding="utf-8") == "made\n"


def test_the_deadline_kills_a_silent_container(engine: Engine, base: str) -> None:
    started = time.monotonic()
    result = engine.run(base, ["sh", "-c", "trap '' TERM; sleep 86200"], timeout=2)
    assert result.timed_out
    assert result.exit_code == 137
    assert time.monotonic() - started < 60
    assert own_containers(engine, base) == []


def test_the_deadline_holds_for_one_that_closed_its_output_or_floods_it(engine: Engine, base: str) -> None:
    assert engine.run(base, ["sh", "-c", "exec >&- 2>&-; sleep 86201"], timeout=2).timed_out
    started = time.monotonic()
    flood = engine.run(
        base, ["sh", "-c", "while true; do echo flood; done"], timeout=2, on_line=lambda line: time.sleep(1e-5)
    )
    assert flood.timed_out
    assert time.monotonic() - started < 60
    assert set(flood.stdout_tail) == {"flood"}


def test_a_container_that_takes_too_much_memory_is_killed_and_says_so(engine: Engine, base: str) -> None:
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]
    result = engine.run(base, command, timeout=30, memory_bytes=64 * MIB)
    assert result.oom_killed
    assert result.exit_code == 137


def test_the_number_of_processes_is_limited(engine: Engine, base: str) -> None:
    script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all"
    result = engine.run(base, ["sh", "-c", script], timeout=30, pids=16)
    assert "all" not in result.stdout_tail
    assert any("fork" in line.lower() for line in result.stderr_tail)


def test_cancel_ends_and_removes_it(engine: Engine, base: str) -> None:
    cancel = threading.Event()
    threading.Timer(1.5, cancel.set).start()
    with pytest.raises(Cancelled):
        engine.run(base, ["sleep", "86202"], timeout=60, cancel=cancel)
    assert own_containers(engine, base) == []


def test_an_exception_of_the_listener_removes_it(engine: Engine, base: str) -> None:
    def fail(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run(base, ["sh", "-c", "echo x; sleep 86203"], timeout=60, on_line=fail)
    assert own_containers(engine, base) == []


def test_a_missing_image_is_named(engine: Engine) -> None:
    with pytest.raises(IngredientError, match="assay-test/none"):
        engine.run("assay-test/none:1", ["true"], timeout=5)


def test_what_a_killed_run_left_is_removed_by_the_next(engine: Engine, base: str) -> None:
    script = (
        "import os, sys\nfrom assay.engine import Engine\n"
        "Engine.connect(start=False).run(sys.argv[1], ['sh', '-c', 'echo up; sleep 86204'], timeout=60,"
        " on_line=lambda line: os.kill(os.getpid(), 9))\n"
    )
    subprocess.run([sys.executable, "-c", script, base], check=False, timeout=60)
    assert len(own_containers(engine, base)) == 1
    Engine.connect(start=False)
    assert own_containers(engine, base) == []


def test_the_drivers_libraries_come_behind_the_images_own(engine: Engine, base: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nENV LD_LIBRARY_PATH=/image/lib\n", encoding="utf-8")
    (tmp_path / "libcuda.so.1").write_text("driver", encoding="utf-8")
    image = engine.build(tmp_path, tag=name, log=tmp_path / "log")
    gpu = GpuAccess(
        mode="devices",
        gpu=HostGpu(index=0, uuid="GPU-1", name="stand-in", driver="1"),
        devices=("/dev/null",),
        mounts=((str(tmp_path / "libcuda.so.1"), "/usr/local/nvidia/lib64/libcuda.so.1"),),
        library_path="/usr/local/nvidia/lib64",
    )
    result = engine.run(
        image, ["sh", "-c", "echo $LD_LIBRARY_PATH; cat /usr/local/nvidia/lib64/libcuda.so.1"], gpu=gpu, timeout=30
    )
    assert result.stdout_tail == ("/image/lib:/usr/local/nvidia/lib64", "driver")
