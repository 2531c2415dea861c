"""Where things are, whoever runs it and however it was installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from assay import paths
from assay.errors import UsageError


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("ASSAY_STATE", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


def test_the_checkout_has_its_fragments():
    assert (paths.docker_dir() / "checks" / "framework.py").is_file()


def test_an_installed_wheel_uses_its_own_copy(monkeypatch, tmp_path):
    package = tmp_path / "site-packages" / "assay"
    (package / "_docker").mkdir(parents=True)
    monkeypatch.setattr(paths, "PACKAGE", package)
    assert paths.docker_dir() == package / "_docker"


def test_an_incomplete_installation_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "a" / "b")
    with pytest.raises(UsageError, match="Install assay again"):
        paths.docker_dir()


def test_state_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path))
    assert paths.state_dir() == tmp_path


@pytest.mark.parametrize(
    ("user", "xdg", "expected"),
    [
        (0, "/xdg", "/var/lib/assay"),
        (1000, "/xdg", "/xdg/assay"),
        (1000, "", "~/.local/state/assay"),
        (1000, "relative", "~/.local/state/assay"),
    ],
)
def test_state_without_a_wish(monkeypatch, user, xdg, expected):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("XDG_STATE_HOME", xdg)
    assert paths.state_dir() == Path(expected).expanduser()
