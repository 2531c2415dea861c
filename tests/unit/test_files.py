"""Atomic writes and the lock of an output folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from assay.errors import Busy
from assay.files import exclusive, lock_file, write_atomically, write_json


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


def test_a_lock_file_is_one_for_all_and_readable(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = lock_file("GPU-1")
    assert path == lock_file("GPU-1") != lock_file("GPU-2")
    assert path.stat().st_mode & 0o444 == 0o444
