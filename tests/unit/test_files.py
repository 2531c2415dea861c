"""Atomic writes and the lock of an output folder."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from assay import files
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
    monkeypatch.setattr(files, "LOCK_FOLDERS", (tmp_path / "absent", tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "one-jobs-own"))  # as batch systems set it for each job
    umask = os.umask(0o077)
    try:
        path = lock_file("GPU-1")
    finally:
        os.umask(umask)
    assert path.parent == tmp_path
    assert path == lock_file("GPU-1") != lock_file("GPU-2")
    assert path.stat().st_mode & 0o777 == 0o644, "a container's own user reads it, too"


def test_who_may_not_write_to_the_first_folder_locks_the_same_file_as_who_may(tmp_path, monkeypatch):
    first, last = tmp_path / "lock", tmp_path / "tmp"
    first.mkdir()
    last.mkdir()
    monkeypatch.setattr(files, "LOCK_FOLDERS", (first, last))
    of_root = lock_file("GPU-1")
    monkeypatch.setattr(
        files.os, "access", lambda folder, mode: folder != first
    )  # /run/lock is root's on some machines
    of_user = lock_file("GPU-2")
    assert (of_root.parent, of_user.parent) == (first, last)
    assert lock_file("GPU-1") == of_root
    monkeypatch.undo()
    monkeypatch.setattr(files, "LOCK_FOLDERS", (first, last))
    assert lock_file("GPU-2") == of_user


def test_a_link_in_the_place_of_a_lock_file_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_FOLDERS", (tmp_path,))
    (tmp_path / "secret").write_text("not for containers")
    (tmp_path / "assay-GPU-1.lock").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="is no ordinary file: remove it"):
        lock_file("GPU-1")
