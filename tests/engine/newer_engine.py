"""Docker Engine 26.1 on Debian bookworm, for tests: trixie's dockerd and containerd with bookworm's runc.

    python tests/engine/newer_engine.py start FOLDER [IMAGE-STORE]     fetches and starts it; prints its DOCKER_HOST
    python tests/engine/newer_engine.py stop FOLDER

IMAGE-STORE: `classic`, as engines had it up to 28, or `containerd`, as fresh installs of 29 have it.

Nothing is installed: the two packages are unpacked into FOLDER, and the engine is a private one with its state there.
They come from the Debian mirror that this machine's own apt is set up for. Needs root and `docker.io` (for runc).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.engine import private

RELEASE = "trixie"
PACKAGES = ("docker.io", "containerd")
TOOLS = ("dockerd", "containerd", "containerd-shim-runc-v2")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def fetch(folder: Path) -> Path:
    """Fetch and unpack the packages into `folder` unless they are there; return the folder of their programs."""
    programs = folder / "programs"
    if all((programs / tool).exists() for tool in TOOLS):
        return programs
    apt = folder / "apt"
    for part in ("lists/partial", "archives/partial", "preferences.d", "apt.conf.d", "sources.list.d"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {RELEASE} main\n", encoding="utf-8")
    (apt / "status").touch()
    options = [
        f"Dir::Etc::sourcelist={apt}/sources.list",
        f"Dir::Etc::sourceparts={apt}/sources.list.d",
        f"Dir::Etc::preferences={apt}/preferences",
        f"Dir::Etc::preferencesparts={apt}/preferences.d",
        f"Dir::State::lists={apt}/lists",
        f"Dir::State::status={apt}/status",
        f"Dir::Cache::archives={apt}/archives",
        f"Dir::Cache::pkgcache={apt}/pkgcache.bin",
        f"Dir::Cache::srcpkgcache={apt}/srcpkgcache.bin",
        "APT::Sandbox::User=root",
        "Acquire::Retries=3",
    ]
    apt_get = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    subprocess.run([*apt_get, "update"], check=True, stdout=sys.stderr)
    subprocess.run([*apt_get, "download", *PACKAGES], check=True, stdout=sys.stderr, cwd=apt)
    for package in sorted(apt.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
    programs.mkdir(exist_ok=True)
    for tool in TOOLS:
        found = next(path for path in (folder / "unpacked").rglob(tool) if path.is_file())
        (programs / tool).unlink(missing_ok=True)
        (programs / tool).symlink_to(found)
    return programs


def mirror() -> str:
    """Return the Debian mirror that this machine's apt is set up for."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(CODENAME) $(SITE)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for line in listed.splitlines():
        origin, component, codename, site = line.split(" ", 3)
        if (origin, component) == ("Debian", "main") and not codename.endswith("-security"):
            return site
    raise SystemExit("apt lists no Debian mirror: run `apt-get update` first")


@contextmanager
def _environment(folder: Path, programs: Path) -> Iterator[None]:
    """Let the private engine's module see the newer programs and a state folder of their own."""
    before = {name: os.environ.get(name) for name in ("ASSAY_STATE", "PATH")}
    os.environ["ASSAY_STATE"] = str(folder / "state")
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def start(folder: Path, image_store: str = "classic") -> str:
    """Start the engine, fetching it first where needed; return its DOCKER_HOST. One that runs is left running."""
    folder = folder.resolve()
    ordinary = private._configuration
    features = {"buildkit": True, "containerd-snapshotter": image_store == "containerd"}
    private._configuration = lambda home: {**ordinary(home), "features": features}
    with _environment(folder, fetch(folder)):
        private.start()
        return private.host()


def stop(folder: Path) -> bool:
    """Stop the engine; tell whether it ran."""
    folder = folder.resolve()
    with _environment(folder, folder / "programs"):
        return private.stop()


def main(arguments: list[str]) -> int:
    """Run the command line above."""
    match arguments:
        case ["start", folder]:
            sys.stdout.write(f"DOCKER_HOST={start(Path(folder))}\n")
        case ["start", folder, ("classic" | "containerd") as image_store]:
            sys.stdout.write(f"DOCKER_HOST={start(Path(folder), image_store)}\n")
        case ["stop", folder]:
            sys.stdout.write(f"stopped: {stop(Path(folder))}\n")
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
