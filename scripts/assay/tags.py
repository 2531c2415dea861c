"""The names under which an image is published, from what was found inside it, not from what its row hoped for.

The full tag says every version and never moves: `exp0.1-cu12.1.105-torch2.4.0-fa2.8.3-py311`. Where a row adds things
of its own, its id stands for them: `exp0.1-mine-cu12.1.105-...`. The moving tags (`exp0.1-cu121`, `latest`) are the
row's, as the matrix sets them.
"""

from __future__ import annotations

import re

from assay import oci
from assay.errors import Refused
from assay.inventory import Inventory, PythonPackage
from assay.matrix.row import Row

PLAIN_SYSTEM = ("debian", "12")
"""The system that a full tag does not name: the default base. Any other is appended (`-ubuntu22.04`)."""

_FULL = re.compile(r".+-cu\d[^-]*-torch\d[^-]*(?:-fa\d[^-]*)?-py\d+(?:-[^-]+)?")


def is_full(tag: str) -> bool:
    """Say whether a tag has the form of a full one, which never moves."""
    return _FULL.fullmatch(tag) is not None


def prefix_of(row: Row, prefix: str) -> str:
    """Return the first part of a row's full tag. prefix: from the matrix.

    Rows of one stack that differ in what they add would get one tag otherwise, and only one of them could be published.
    """
    return f"{prefix}-{row.id}" if row.adds_its_own else prefix


def full_tag(inventory: Inventory, prefix: str) -> str:
    """Return the tag that names what an image holds.

    prefix: version of what the image runs (`exp0.1`), from the matrix.
    Raises Refused when the image does not say what it holds clearly enough to be named.
    """
    torch = inventory.python_package("torch")
    if torch is None or torch.python is None:
        raise Refused("the image holds no installed torch, so no tag can be made for it")
    parts = [prefix, f"cu{_cudart(inventory)}", f"torch{_public(torch)}"]
    if flash_attn := inventory.python_package("flash-attn"):
        parts.append(f"fa{_public(flash_attn)}")
    parts.append(f"py{torch.python.replace('.', '')}")
    system = (inventory.os.get("ID", "unknown"), inventory.os.get("VERSION_ID", ""))
    if system != PLAIN_SYSTEM:
        parts.append("".join(system))
    tag = "-".join(parts)
    if not oci.is_tag(tag):
        raise Refused(f"{tag!r}, made from what the image holds, is no tag that a registry takes")
    return tag


def _public(package: PythonPackage) -> str:
    """Return a version without its local part: `2.4.0` of `2.4.0+cu121`."""
    return package.version.partition("+")[0]


def _cudart(inventory: Inventory) -> str:
    """Return the CUDA runtime's version: of the toolkit, or of the wheel that torch brings where there is none."""
    found = {toolkit.components.get("cuda_cudart") for toolkit in inventory.toolkits} - {None}
    if not found:
        names = ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu11", "nvidia-cuda-runtime")
        found = {package.version for name in names if (package := inventory.python_package(name))}
    versions = sorted(str(one) for one in found)
    if len(versions) != 1:
        raise Refused(
            f"the image holds {' and '.join(versions) or 'no CUDA runtime'}: a tag names exactly one CUDA runtime"
        )
    return versions[0]
