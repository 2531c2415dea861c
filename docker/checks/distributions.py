"""The installed Python distributions of this interpreter's own environment, by their normalised names."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

Distributions = dict[str, metadata.Distribution]


def site_folders() -> list[Path]:
    """Return the folders into which packages are installed: pure ones and those with machine code, usually the same."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return sorted(Path(folder) for folder in folders)


def installed() -> tuple[Distributions, list[str]]:
    """Return the distributions by name, and a line for each that is there twice or has no readable name."""
    found: Distributions = {}
    problems = []
    for folder in site_folders():
        for distribution in metadata.distributions(path=[str(folder)]):
            name = distribution.metadata["Name"] if distribution.metadata else None
            if not name:
                problems.append(f"{getattr(distribution, '_path', folder)} has no name in its metadata")
                continue
            key = normalised(name)
            if key in found:
                problems.append(f"{key} is installed twice: {found[key].version} and {distribution.version}")
            found[key] = distribution
    return found, problems


def normalised(name: str) -> str:
    """Return a distribution's name as the package index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def owners(packages: Iterable[metadata.Distribution]) -> dict[str, tuple[str, str]]:
    """Return the real path of every file of some distributions, with the distribution's normalised name and version."""
    found = {}
    for distribution in packages:
        # Each of these parses the metadata anew, so it is asked once, not per file.
        owner = (normalised(distribution.metadata["Name"]), distribution.version)
        for file in distribution.files or ():
            found[os.path.realpath(str(file.locate()))] = owner
    return found
