"""What a check answers, and what is known of an image when all its checks have answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

MATCHES_ROW = "gpu.matches-row"
"""The check that says which of the row's GPUs the one at hand speaks for."""


class Status(str, Enum):
    """A check's answer. Only `PASSED` is positive evidence."""

    PASSED = "passed"
    FAILED = "failed"
    BLOCKED = "blocked"
    NOT_RUN = "not-run"
    ERROR = "error"


class Level(str, Enum):
    """How much of the evidence was gathered: everything that needs no GPU, or all of it."""

    IMAGE = "image"
    GPU = "gpu"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's answer, with what was measured against what was required.

    check: dotted id, such as `torch.import`, or `build.<part>` for a build that failed.
    evidence: error text or log lines, as the tool printed them; `because.matches` is searched in it.
    data: further measurements for machines (numbers, lists); report and certificate carry them unchanged.
    """

    check: str
    status: Status
    required: str = ""
    measured: str = ""
    evidence: str = ""
    seconds: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the finding as `report.json` holds it."""
        return {**asdict(self), "status": self.status.value, "seconds": round(self.seconds, 3)}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Finding:
        """Read a finding back from `report.json` or from the line that a check printed."""
        return cls(**{**raw, "status": Status(raw["status"])})


def gpus_not_judged(findings: Iterable[Finding]) -> list[str]:
    """Return those of a row's GPUs whose machine code never ran, `A100 (8.0)`, as the check of the GPU at hand says.

    None at level image, where no GPU was asked, and in reports and certificates made before this was kept.
    """
    found = (finding.data.get("not_judged") for finding in findings if finding.check == MATCHES_ROW)
    return [str(name) for names in found if isinstance(names, list) for name in names]


def root_failures(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that failed themselves; blocked ones are their consequences."""
    return tuple(finding for finding in findings if finding.status is Status.FAILED)
