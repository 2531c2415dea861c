"""CUDA's rule of binary compatibility: which machine code runs on which GPU."""

from __future__ import annotations

import re

_ARCH = re.compile(r"(?:sm_)?(?:(?P<major>\d+)\.(?P<minor>\d)|(?P<digits>\d{2,3}))(?P<suffix>[af]?)")


def runs_on(code_arch: str, capability: str) -> bool:
    """Say whether machine code (SASS, not PTX) for `code_arch` runs on a GPU of compute capability `capability`.

    The same major version, and a minor version that is not newer than the GPU's: 8.0 code runs on 8.6 and 8.9, not on
    9.0. Code with the suffix `a` (architecture-specific) runs on exactly its own; with `f` (family-specific) the
    ordinary rule holds within the major version. Source: CUDA C++ Programming Guide, "Binary Compatibility" and
    "Feature Set Compiler Targets".

    Both are written as CUDA does: `8.0`, `80`, `sm_80`, `90a`, `12.0`, `120`.

    Raises ValueError for what is no architecture.

    >>> runs_on("80", "8.6"), runs_on("8.0", "9.0"), runs_on("sm_90a", "9.0")
    (True, False, True)
    """
    code_major, code_minor, suffix = _parse(code_arch)
    major, minor, _ = _parse(capability)
    if suffix == "a":
        return (code_major, code_minor) == (major, minor)
    return code_major == major and code_minor <= minor


def _parse(arch: str) -> tuple[int, int, str]:
    """Split `sm_90a`, `90`, `9.0` or `120` into major, minor and suffix: the last digit is the minor version."""
    match = _ARCH.fullmatch(arch)
    if match is None:
        raise ValueError(f"{arch!r} is not a CUDA architecture such as '8.0', '80' or 'sm_90a'")
    if match["digits"]:
        return int(match["digits"][:-1]), int(match["digits"][-1]), match["suffix"]
    return int(match["major"]), int(match["minor"]), match["suffix"]
