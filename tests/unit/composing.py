"""What tests of composing have in common: the shipped rows, a plain one, no network, and a wheel."""

from __future__ import annotations

import hashlib
from pathlib import Path

from assay import matrix
from assay.matrix.row import FlashAttn, Row
from assay.network import NetworkSettings
from assay.wheels import Wheel

CHECKOUT = Path(__file__).parents[2]
OFFLINE = NetworkSettings()
PLAIN = Row(id="plain", expect="certify", flash_attn=FlashAttn(source="none"))
ROWS = {
    row.id: row
    for file in ("matrix.toml", "examples/matrix.nvidia-cuda.toml")
    for row in matrix.load(CHECKOUT / file).rows
}


def stand_in(folder: Path) -> Wheel:
    """Return a wheel that can be copied and hashed, and no more."""
    path = folder / "flash_attn-2.8.3+assay.hd64-cp311-cp311-linux_x86_64.whl"
    path.write_bytes(b"not really a wheel")
    return Wheel(
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        source="wheelhouse",
        compiler=None,
        archs=("80",),
        version="2.8.3+assay.hd64",
        files={},
    )
