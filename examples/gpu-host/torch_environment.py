"""Make a small virtual environment from a host's own torch: torch and what it requires, and nothing else.

    python3 torch_environment.py /opt/venv

Run by the Python that has torch, on a machine that cannot download it. Files are hard-linked where the file system
allows it, so that this takes seconds. Exit code 1 names a requirement that is not installed.
"""

# ruff: noqa: T201
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

# numpy: torch's bridge to it. packaging: with it the checks read requirements. einops: flash-attn's other requirement.
ROOTS = ("torch", "numpy", "packaging", "einops")
OPTIONAL = frozenset(ROOTS) - {"torch"}  # what the host lacks of these, the caller may add to the image


def closure(roots: tuple[str, ...]) -> tuple[dict[str, metadata.Distribution], list[str]]:
    """Return the distributions that some packages need, by normal name, and the needs that are not installed.

    Markers are judged by `packaging`, which pip brings; extras that a requirement names are followed.
    """
    from pip._vendor.packaging.requirements import Requirement

    found: dict[str, metadata.Distribution] = {}
    missing: list[str] = []
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        for line in found[name].requires or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((normalised(need.name), frozenset(need.extras)))
    return found, sorted(set(missing))


def normalised(name: str) -> str:
    """Return a package's name as the index compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def copy(distribution: metadata.Distribution, site: Path) -> int:
    """Link or copy a distribution's files into another environment; return how many.

    Byte code is left. Scripts come along as they are, with the old interpreter's path inside: every file is to equal
    its hash in the wheel that it came from.
    """
    count = 0
    for file in distribution.files or ():
        source, target = Path(str(file.locate())), Path(os.path.normpath(site / file))
        if file.suffix == ".pyc" or not source.is_file() or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.resolve(), target)
        except OSError:
            shutil.copy2(source, target)
        count += 1
    return count


def main(target: str) -> int:
    """Make the environment."""
    found, missing = closure(ROOTS)
    if needed := [name for name in missing if name not in OPTIONAL]:
        print(f"torch requires what is not installed here: {', '.join(needed)}", file=sys.stderr)
        return 1
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run([str(base), "-m", "venv", "--without-pip", target], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": target, "platbase": target}))
    files = sum(copy(distribution, site) for distribution in found.values())
    absent = f"; not here: {', '.join(missing)}" if missing else ""
    print(f"{target}: {len(found)} packages, {files} files{absent}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
