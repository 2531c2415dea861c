"""The clients that decide: cosign, oras, skopeo and docker, as people run them.

cosign and oras are in Debian from trixie on. Elsewhere their packages are fetched with apt from the machine's own
mirror, for that suite, and unpacked into a folder: nothing is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

SUITE = "trixie"
FETCHED = ("cosign", "oras")


def tools_folder() -> Path:
    """Where fetched clients stay between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "assay-tests" / SUITE


def find(name: str) -> str | None:
    """Return the path of a client, fetching it where that is possible, else None."""
    found = shutil.which(name)
    if found or name not in FETCHED:
        return found
    path = tools_folder() / "root" / "usr" / "bin" / name
    if not path.exists():
        _fetch(tools_folder())
    return str(path) if path.exists() else None


def _fetch(folder: Path) -> None:
    if shutil.which("apt-get") is None:
        return
    for part in ("lists/partial", "cache/archives/partial", "packages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "suite.sources").write_text(_sources())
    options = {
        "Dir::Etc::sourcelist": folder / "suite.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "3",
    }
    apt = ["apt-get", "-q", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
    if subprocess.run([*apt, "update"], capture_output=True).returncode != 0:
        return
    subprocess.run([*apt, "download", *FETCHED], cwd=folder / "packages", capture_output=True)
    for package in (folder / "packages").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "root")], check=True)


def _sources() -> str:
    """Return the machine's own main archive, for the suite that has the clients."""
    paragraphs = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for paragraph in re.split(r"\n\s*\n", path.read_text()):
            text = "\n".join(line for line in paragraph.splitlines() if not line.startswith("#"))
            if "debian" in text and "security" not in text and re.search(r"^URIs:", text, re.MULTILINE):
                paragraphs.append(re.sub(r"^Suites:.*$", f"Suites: {SUITE}", text, flags=re.MULTILINE))
    listed = Path("/etc/apt/sources.list")
    for line in listed.read_text().splitlines() if listed.exists() else []:
        match = re.match(r"deb\s+(\[[^]]*\]\s+)?(\S+)\s+\S+\s+main", line)
        if match and "security" not in line:
            paragraphs.append(f"Types: deb\nURIs: {match[2]}\nSuites: {SUITE}\nComponents: main")
            break
    return "\n\n".join(paragraphs) + "\n"


def run(
    *command: str, environment: dict[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a client and return its output; with `check`, fail showing all of it."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done
