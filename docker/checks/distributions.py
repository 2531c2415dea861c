"""The installed Python distributions of this interpreter's own environment, by their normalised names."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

Distributions = dict[str, metadata.Distribution]


def site_folders() -> list[Path]:
    """Return the folders into which packages are installed: pure ones and those with machine code, usually the same.

    Where an environment of Fedora's Python has the second in `lib64`, that is a link to `lib`: one folder, once.
    """
    folders = {os.path.realpath(path): path for path in map(sysconfig.get_path, ("platlib", "purelib"))}
    return sorted(Path(folder) for folder in folders.values())


def import_path() -> list[str]:
    """Return where this Python looks for modules."""
    return list(sys.path)


def elsewhere() -> list[tuple[metadata.Distribution, Path]]:
    """Return the installed distributions that Python finds outside of the site folders, and where: by PYTHONPATH, say.

    Only what an installer put there counts; what a build left beside an application's own sources does not. Folders
    below a site folder are a package's own matter: setuptools puts the one with its vendored packages on the path.
    """
    sites = [os.path.realpath(site) for site in site_folders()]
    found = []
    for folder in dict.fromkeys(os.path.realpath(entry) for entry in import_path() if entry):
        if any(folder == site or folder.startswith(f"{site}/") for site in sites):
            continue
        for distribution in metadata.distributions(path=[folder]):
            where = Path(str(getattr(distribution, "_path", folder)))
            if where.suffix == ".dist-info" and distribution.metadata and distribution.metadata["Name"]:
                found.append((distribution, where.parent))
    return found


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
