"""Where assay finds its Docker fragments, and where it keeps what outlives a run."""

from __future__ import annotations

import os
from pathlib import Path

from assay.errors import UsageError

PACKAGE = Path(__file__).resolve().parent


def docker_dir() -> Path:
    """Return the folder with the Dockerfile fragments, locks, checks and runtime.

    It is `docker/` of the checkout, or the copy that an installed wheel carries as `assay/_docker`.

    Raises UsageError when neither is there: the installation is incomplete.
    """
    candidates = (PACKAGE / "_docker", PACKAGE.parents[1] / "docker")
    for folder in candidates:
        if folder.is_dir():
            return folder
    looked = " nor ".join(str(folder) for folder in candidates)
    raise UsageError(
        f"assay's Docker fragments are missing: neither {looked} exists. "
        "Install assay again, from its wheel or with `pip install -e .` in its checkout."
    )


def state_dir() -> Path:
    """Return the folder for what outlives a run (wheelhouse, certificates, private engine); it may not exist yet.

    `ASSAY_STATE` says where; else root keeps it in `/var/lib/assay`, and everybody else where the XDG base
    directory specification puts state: `$XDG_STATE_HOME/assay`, or `~/.local/state/assay`.
    """
    if chosen := os.environ.get("ASSAY_STATE"):
        return Path(chosen).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/assay")
    # The specification: a relative XDG_STATE_HOME is invalid and ignored.
    xdg = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = xdg if xdg.is_absolute() else Path.home() / ".local" / "state"
    return base / "assay"
