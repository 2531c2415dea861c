"""The table of claims, and what comes of measuring it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli
from pydantic import BaseModel, ConfigDict, ValidationError

from assay.errors import AssayError, ExitCode, IngredientError, UsageError
from assay.findings import Finding, Status
from assay.report import Report, RowReport
from assay.suggest import perhaps

DATA = Path(__file__).resolve().parent / "claims.toml"

ClaimVerdict = Literal["false", "true", "true in part", "plausible", "not supported", "impossible"]


class Claim(BaseModel):
    """One claim, as `claims.toml` holds it; its comments tell the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    claim: str
    verdict: ClaimVerdict
    truth: str
    measure: str
    how: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Context:
    """What measuring may look at: the last run's report, if there is one, and folders with flash-attn wheels."""

    report: Report | None = None
    wheelhouses: tuple[Path, ...] = ()

    @property
    def rows(self) -> tuple[RowReport, ...]:
        """The rows of the last report."""
        return self.report.rows if self.report else ()

    def findings(self, check: str) -> Iterator[Finding]:
        """Yield the findings of a check that was answered in the last report, certified rows first."""
        for row in sorted(self.rows, key=lambda row: row.verdict != "certified"):
            answered = (Status.PASSED, Status.FAILED)
            yield from (one for one in row.findings if one.check == check and one.status in answered)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found.

    supports: whether it bears out the table's verdict; None when it settles only a part. data: numbers, for machines.
    """

    text: str
    supports: bool | None
    data: dict[str, Any] = field(default_factory=dict)


class NotMeasuredError(Exception):
    """The claim cannot be measured on this machine; the message says what is missing."""


Measure = Callable[[Context], Measured]


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers, in which versions are compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A claim with what this machine measured. supports is None where that settles nothing."""

    id: str
    claim: str
    verdict: ClaimVerdict
    truth: str
    how: str
    source: str
    measured: str
    supports: bool | None
    data: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the line as `claims.json` and the report's page hold it."""
        return asdict(self)


def load(path: Path = DATA) -> tuple[Claim, ...]:
    """Read the table. Raises AssayError when it is damaged: it is part of the package, so that is a defect of ours."""
    try:
        claims = tuple(Claim(**raw) for raw in tomli.loads(path.read_text(encoding="utf-8"))["claim"])
    except (OSError, KeyError, tomli.TOMLDecodeError, ValidationError) as error:
        raise AssayError(f"{path}: the table of claims cannot be read: {error}") from error
    return claims


def select(claims: Sequence[Claim], ids: Iterable[str]) -> tuple[Claim, ...]:
    """Return the claims of those ids, all when there are none. Raises UsageError for an id that is not there."""
    wanted = list(ids)
    known = {claim.id: claim for claim in claims}
    for name in wanted:
        if name not in known:
            raise UsageError(f"unknown claim {name!r}; {perhaps(name, known)}")
    return tuple(known[name] for name in wanted) or tuple(claims)


def measure_all(claims: Iterable[Claim], context: Context, functions: dict[str, Measure]) -> Iterator[Line]:
    """Measure one claim after the other. What cannot be measured here says why; it supports and refutes nothing."""
    for claim in claims:
        supports: bool | None
        data: dict[str, Any]
        try:
            found = functions[claim.measure](context)
            text, supports, data = found.text, found.supports, found.data
        except NotMeasuredError as reason:
            text, supports, data = f"not measured here: {reason}", None, {}
        except IngredientError as error:
            text, supports, data = f"not measured here: {str(error).splitlines()[0]}", None, {}
        yield Line(
            id=claim.id,
            claim=claim.claim,
            verdict=claim.verdict,
            truth=claim.truth,
            how=claim.how,
            source=claim.source,
            measured=text,
            supports=supports,
            data=data,
        )


def exit_code(lines: Iterable[Line]) -> ExitCode:
    """Return NOT_AS_EXPECTED when a measurement contradicts the table's verdict, else AS_EXPECTED."""
    contradicted = any(line.supports is False for line in lines)
    return ExitCode.NOT_AS_EXPECTED if contradicted else ExitCode.AS_EXPECTED
