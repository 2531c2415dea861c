"""Atomic writes and the lock of an output folder."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from assay.errors import Busy
from assay.files import exclusive, turn, write_atomically, write_json


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_a_second_run_in_the_folder_is_refused_with_the_holder_named(tmp_path):
    script = "import sys, pathlib, assay.files\nwith assay.files.exclusive(pathlib.Path(sys.argv[1])): print('held')"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with exclusive(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Busy" in second.stderr
    assert "--out DIR" in second.stderr
    third = subprocess.run(command, capture_output=True, text=True, check=False)
    assert third.stdout == "held\n", third.stderr


def test_the_lock_in_one_process_is_refused_too(tmp_path):
    with exclusive(tmp_path), pytest.raises(Busy, match=r"process \d+"), exclusive(tmp_path):
        pass


def test_threads_and_processes_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cancel, waits, held = threading.Event(), [], []

    def other():
        with turn("GPU-1", cancel, lambda: waits.append("thread")):
            held.append("thread")

    script = (
        "import tempfile, threading, sys, assay.files\ntempfile.tempdir = sys.argv[1]\n"
        "with assay.files.turn('GPU-1', threading.Event(), lambda: print('waits', flush=True)): print('held')"
    )
    with turn("GPU-1", cancel, lambda: waits.append("nobody")):
        thread = threading.Thread(target=other)
        thread.start()
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "waits\n"
        while not waits:
            time.sleep(0.01)
        assert held == []
        with turn("GPU-2", cancel, lambda: waits.append("another GPU")):
            pass
    thread.join()
    assert process.communicate()[0] == "held\n"
    assert (waits, held) == (["thread"], ["thread"])


def test_a_cancelled_wait_for_a_turn_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cancel = threading.Event()
    with turn("GPU-1", cancel, lambda: None), turn("GPU-1", cancel, cancel.set):
        assert cancel.is_set()
