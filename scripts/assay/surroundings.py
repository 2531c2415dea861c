"""What all rows of a run share."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from assay.engine import Engine, GpuAccess
from assay.findings import Level
from assay.keys import SigningKey
from assay.network import NetworkSettings
from assay.progress import View
from assay.releases import Releases


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What all rows of a run share: the engine, the machine's network, where things go, who watches.

    folder: of the matrix file; a row's `files` are found from there.
    checks_digest: of the checks as this process loaded them, before any row.
    """

    engine: Engine
    network: NetworkSettings
    releases: Releases
    checks_digest: str
    folder: Path
    out: Path
    level: Level
    gpu: GpuAccess | None
    wheelhouses: tuple[Path, ...]
    fresh: bool
    key: SigningKey | None
    view: View
    cancel: threading.Event
