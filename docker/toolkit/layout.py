"""Lay NVIDIA's Python wheels out as an ordinary CUDA toolkit.

The wheels install as `nvidia/<component>/{bin,include,lib,nvvm,...}`; compilers, build scripts and people look for
`/usr/local/cuda-X.Y/{bin,include,lib64,nvvm,version.json}` with a `/usr/local/cuda` link beside it. Runs inside the
image while it is built, with the image's own Python (3.9 or newer) and nothing else.

    python layout.py WHEELS /usr/local/cuda-12.1 --release 12.1.1
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

# Python packages say `-cu12`; from CUDA 13 on their names carry no suffix.
_SUFFIX = re.compile(r"-cu\d+$")
# libcudart.so.12, libnvrtc-builtins.so.12.1, libnvrtc.alt.so.12: the linker wants the name without the version.
_VERSIONED = re.compile(r"^(?P<linker_name>.+\.so)\.\d+(\.\d+)*$")
# The folder of a component in the wheel -> its place in the toolkit.
_PLACES = {"lib": "lib64"}
# Parts of the Python packaging that are no part of a toolkit.
_LEAVE_OUT = {"__init__.py", "__pycache__"}
# Component as the wheel's name has it -> its key and its name in the version.json of NVIDIA's own toolkit.
_KEYS = {
    "cublas": ("libcublas", "CUDA cuBLAS"),
    "cuda_cccl": ("cuda_cccl", "CUDA C++ Core Compute Libraries"),
    "cuda_nvcc": ("cuda_nvcc", "CUDA NVCC"),
    "cuda_nvrtc": ("cuda_nvrtc", "CUDA NVRTC"),
    "cuda_runtime": ("cuda_cudart", "CUDA Runtime (cudart)"),
    "nvjitlink": ("libnvjitlink", "CUDA nvJitLink"),
}


def components(wheels: Path) -> dict[str, str]:
    """Return component name -> version of the wheels installed in a folder, from their metadata."""
    found = {}
    for folder in wheels.glob("*.dist-info"):
        name, _, version = folder.name[: -len(".dist-info")].partition("-")
        component = _SUFFIX.sub("", name.replace("_", "-"))
        found[component.removeprefix("nvidia-").replace("-", "_")] = version
    return dict(sorted(found.items()))


def merge(source: Path, target: Path) -> None:
    """Move a tree into another one that may hold some of its folders already.

    Raises FileExistsError when two components bring the same file with different content.
    """
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        if entry.name in _LEAVE_OUT:
            continue
        place = target / entry.name
        if entry.is_dir() and not entry.is_symlink():
            merge(entry, place)
        elif place.exists() and place.read_bytes() != entry.read_bytes():
            raise FileExistsError(f"{entry} and {place} differ: two wheels bring the same file")
        else:
            entry.replace(place)


def lay_out(wheels: Path, toolkit: Path, release: str) -> None:
    """Turn installed wheels into a toolkit folder.

    wheels: the folder that the wheels were installed into; its files are moved, not copied.
    toolkit: `/usr/local/cuda-X.Y`; the link `cuda` is made beside it.
    release: what `version.json` says (`12.1.1`).
    Raises FileNotFoundError when the wheels hold no library: they are not what they seem.
    """
    versions = components(wheels)
    for component in sorted((wheels / "nvidia").iterdir()):
        if not component.is_dir():
            continue
        for part in sorted(component.iterdir()):
            if part.is_dir() and part.name not in _LEAVE_OUT:
                merge(part, toolkit / _PLACES.get(part.name, part.name))
    libraries = toolkit / "lib64"
    if not any(libraries.glob("libcudart.so.*")):
        raise FileNotFoundError(f"no libcudart in {libraries}: the wheels of {wheels} hold no runtime")
    for library in sorted(libraries.iterdir()):
        if match := _VERSIONED.match(library.name):
            link = libraries / match["linker_name"]
            if not link.exists():
                link.symlink_to(library.name)
    for program in (toolkit / "bin").glob("*"):
        program.chmod(0o755)
    write_version(toolkit, release, versions)
    link = toolkit.parent / "cuda"
    if link.is_symlink():
        link.unlink()
    link.symlink_to(toolkit.name)


def write_version(toolkit: Path, release: str, versions: dict[str, str]) -> None:
    """Write `version.json` as NVIDIA's toolkit has it: the release, and one entry per component."""
    entries = {"cuda": {"name": "CUDA SDK", "version": release}}
    for component, version in versions.items():
        key, name = _KEYS.get(component, (component, component))
        entries[key] = {"name": name, "version": version}
    text = json.dumps(entries, indent=3) + "\n"
    (toolkit / "version.json").write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run from the command line; see the top of this file."""
    parser = argparse.ArgumentParser(description="Lay NVIDIA's wheels out as a CUDA toolkit.")
    parser.add_argument("wheels", type=Path)
    parser.add_argument("toolkit", type=Path)
    parser.add_argument("--release", required=True)
    options = parser.parse_args(arguments)
    lay_out(options.wheels, options.toolkit, options.release)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
