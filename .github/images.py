"""Carry certified images from the runner that built them to the one that publishes them. Standard library only.

    python3 .github/images.py save NAME FOLDER     writes FOLDER/image.tar.gz and FOLDER/store
    python3 .github/images.py load FOLDER          loads what lies in FOLDER/*, and removes the archives

An engine with containerd's image store, which a new Docker Engine 29 has, calls an image by its manifest, and one with
the classic store by its configuration. In an engine of the other kind the certified image has another id, and `assay
publish` rightly says that it is not there. So each image travels with the word for its engine's store, and the engine
that loads it is given that store first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CONTAINERD, CLASSIC = "containerd", "classic"
DAEMON_JSON = Path("/etc/docker/daemon.json")
SWITCH = "containerd-snapshotter"


def main(arguments: list[str]) -> int:
    """Do what the command line asks; return the exit code."""
    try:
        if len(arguments) == 3 and arguments[0] == "save":
            return save(arguments[1], Path(arguments[2]))
        if len(arguments) == 2 and arguments[0] == "load":
            return load(Path(arguments[1]))
    except FileNotFoundError as error:
        return failure(f"{error.filename} is not there, and carrying images needs it")
    except subprocess.CalledProcessError as error:
        return failure(f"`{' '.join(error.cmd)}` failed: see above")
    print(__doc__, file=sys.stderr)
    return 2


def save(name: str, folder: Path) -> int:
    """Write an image, and how its engine keeps images, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "image.tar.gz").open("wb") as archive:
        packing = subprocess.Popen(["gzip", "-1"], stdin=subprocess.PIPE, stdout=archive)
        saved = subprocess.run(["docker", "save", name], stdout=packing.stdin, check=False).returncode
        if packing.stdin is not None:
            packing.stdin.close()
        packed = packing.wait()
    if saved or packed:
        return failure(f"{name} could not be saved: see above; is the disk full? `df -h {folder}`")
    (folder / "store").write_text(f"{store()}\n", encoding="ascii")
    return 0


def load(folder: Path) -> int:
    """Load every image that lies in the folder's folders into an engine that keeps images as their engines did."""
    archives = sorted(folder.glob("*/image.tar.gz"))
    if not archives:
        return failure(
            f"no image in {folder}: the artefacts are gone, or no row of the matrix is to be certified; run the whole "
            "workflow again, as a re-run of this job finds no others"
        )
    stores = {path.parent.name: (path.parent / "store").read_text(encoding="ascii").strip() for path in archives}
    if len(set(stores.values())) > 1:
        told = ", ".join(f"{name}: {found}" for name, found in stores.items())
        return failure(
            f"these images come from engines that keep images in two ways ({told}), and one engine cannot hold both "
            f'under the ids that were certified: give all runners the same {{"features": {{"{SWITCH}": ...}}}} in '
            f"{DAEMON_JSON}, and run the whole workflow again"
        )
    (wanted,) = set(stores.values())
    if store() != wanted and not switch_to(wanted):
        return failure(f"the engine could not be given the {wanted} image store that the rows' engines have: see above")
    for archive in archives:
        if subprocess.run(["docker", "load", "--input", str(archive)], check=False).returncode:
            return failure(f"{archive} could not be loaded: see above; is the disk full? `df -h`")
        archive.unlink()  # beside the image, on a disk that barely has room for both
    return 0


def store() -> str:
    """Return how the engine keeps images."""
    said = subprocess.run(
        ["docker", "info", "--format", "{{json .DriverStatus}}"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return CONTAINERD if "io.containerd.snapshotter" in said else CLASSIC


def switch_to(wanted: str) -> bool:
    """Restart this runner's engine with the other image store; tell whether it has it then."""
    print(f"the rows' engines have the {wanted} image store: restarting this runner's with it", flush=True)
    before = DAEMON_JSON.read_text(encoding="utf-8") if DAEMON_JSON.is_file() else ""
    subprocess.run(
        ["sudo", "tee", str(DAEMON_JSON)],
        input=configured(before, wanted),
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(["sudo", "systemctl", "restart", "docker"], check=True)
    return store() == wanted


def configured(daemon_json: str, wanted: str) -> str:
    """Return the engine's configuration with an image store, and everything else as it was."""
    settings = json.loads(daemon_json or "{}")
    settings["features"] = {**settings.get("features", {}), SWITCH: wanted == CONTAINERD}
    return json.dumps(settings, indent=2) + "\n"


def failure(text: str) -> int:
    """Say what went wrong, where GitHub shows it first."""
    print(f"::error::{text}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
