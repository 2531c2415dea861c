"""The report of a run as data, and its JSON form (schema 1 of `report.json`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

from assay.errors import UsageError
from assay.findings import Finding, Level, root_failures
from assay.matrix.schema import is_id
from assay.suggest import perhaps

SCHEMA = 1
VerdictWord = Literal["certified", "rejected", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """The image that was judged: its id in the engine (the config digest), its tags, and its size in bytes."""

    id: str
    tags: tuple[str, ...] = ()
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class RowReport:
    """One row of a run: what was expected, what was found, and why the verdict is what it is.

    why: one line; for an inconclusive row it names the cause and what to do.
    cached: the verdict comes from a certificate of an earlier run, and nothing was built or started for it.
    build_seconds, check_seconds: wall time of this verdict's build and checks, the earlier ones when cached.
    complete: False when another run could still bring the row out as expected, because an answer is missing.
    gpu: the GPU that the row was judged on: `name`, `uuid`, `driver`, and `access`, how the container got it; none at
        level `image`.
    """

    id: str
    what: str
    expect: str
    verdict: VerdictWord
    as_expected: bool
    level: Level
    why: str = ""
    complete: bool = True
    because: tuple[dict[str, str], ...] = ()
    image: ImageRecord | None = None
    build_seconds: float = 0.0
    check_seconds: float = 0.0
    findings: tuple[Finding, ...] = ()
    cached: bool = False
    gpu: dict[str, Any] | None = None
    ingredients: tuple[dict[str, Any], ...] = ()

    @property
    def root_failures(self) -> tuple[Finding, ...]:
        """The findings that failed themselves."""
        return root_failures(self.findings)

    @property
    def judged(self) -> bool:
        """Whether anything was asked about the row; one that was never reached has no finding, and no level."""
        return bool(self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the row as `report.json` holds it."""
        return {
            "id": self.id,
            "what": self.what,
            "expect": self.expect,
            "because": list(self.because),
            "verdict": self.verdict,
            "as_expected": self.as_expected,
            "why": self.why,
            "complete": self.complete,
            "level": self.level.value,
            "cached": self.cached,
            "image": None
            if self.image is None
            else {"id": self.image.id, "tags": list(self.image.tags), "size": self.image.size},
            "gpu": self.gpu,
            "ingredients": list(self.ingredients),
            "seconds": {
                "build": round(self.build_seconds, 1),
                "checks": round(self.check_seconds, 1),
            },
            "root_failures": [finding.check for finding in self.root_failures],
            "findings": [finding.to_json() for finding in self.findings],
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> RowReport:
        """Read a row back from `report.json`. Raises KeyError, TypeError or ValueError for what is none."""
        image = _take(raw, "image", dict, NoneType)
        if raw["verdict"] not in get_args(VerdictWord):
            raise ValueError(f"{raw['verdict']!r} is no verdict")
        if not is_id(_take(raw, "id", str)):
            raise ValueError(f"{raw['id']!r} is no row's id")  # it names the row's folder
        seconds = _take(raw, "seconds", dict)
        return cls(
            id=raw["id"],
            what=_take(raw, "what", str),
            expect=_take(raw, "expect", str),
            because=tuple(
                {"check": _take(one, "check", str), "matches": _take(one, "matches", str)}
                for one in _take(raw, "because", list)
            ),
            verdict=raw["verdict"],
            as_expected=_take(raw, "as_expected", bool),
            why=_take(raw, "why", str),
            complete=_take(raw, "complete", bool),
            level=Level(raw["level"]),
            cached=_take(raw, "cached", bool),
            image=None if image is None else _image(image),
            gpu=_gpu(_take(raw, "gpu", dict, NoneType)),
            ingredients=tuple(_ingredient(one) for one in _take(raw, "ingredients", list)),
            build_seconds=float(_take(seconds, "build", float, int)),
            check_seconds=float(_take(seconds, "checks", float, int)),
            findings=tuple(_finding(one) for one in _take(raw, "findings", list)),
        )


def _take(raw: Mapping[Any, Any], key: str | int, *kinds: type) -> Any:
    """Return a value of a report. Raises KeyError without it; TypeError when it is of none of these types exactly.

    A report comes from a file that anybody may have touched, and `"as_expected": "no"` must not pass for true.
    """
    value = raw[key]
    if type(value) not in kinds:
        raise TypeError(f"{key!r} is of the type {type(value).__name__}")
    return value


def _image(raw: dict[str, Any]) -> ImageRecord:
    tags = dict(enumerate(_take(raw, "tags", list)))
    return ImageRecord(
        id=_take(raw, "id", str),
        tags=tuple(_take(tags, number, str) for number in tags),
        size=_size(raw, "size"),
    )


def _size(raw: dict[str, Any], key: str) -> int:
    """Return a number of bytes. Raises OverflowError, too, for one of hundreds of digits: it could not be shown."""
    size: int = _take(raw, key, int)
    float(size)
    return size


def _gpu(raw: dict[str, Any] | None) -> dict[str, Any] | None:
    for key in raw or ():
        _take(raw or {}, key, str)
    return raw


def _ingredient(raw: dict[str, Any]) -> dict[str, Any]:
    for key in ("name", "version", "source"):
        _take(raw, key, str)
    return raw


def _finding(raw: dict[str, Any]) -> Finding:
    finding = Finding.from_json(raw)
    for key in ("check", "required", "measured", "evidence"):
        _take(vars(finding), key, str)
    _take(vars(finding), "seconds", float, int)
    float(finding.seconds)
    _take(vars(finding), "data", dict)
    return finding


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows of a run, in the order of the matrix.

    storage: bytes of all images together and the part of it that they share, `{"total": ..., "shared": ...}`.
    """

    level: Level
    rows: tuple[RowReport, ...]
    started: str = ""
    seconds: float = 0.0
    engine: str = ""
    storage: dict[str, int] = field(default_factory=dict)

    @property
    def as_expected(self) -> bool:
        """Whether every row came out as the matrix expects; a report without rows proves nothing."""
        return bool(self.rows) and all(row.as_expected for row in self.rows)

    def select(self, ids: Iterable[str], where: str) -> Report:
        """Return the report of these rows only; of all when none is named.

        Its seconds are those of its rows, and what the images take together is left out: both were told of the whole.
        Raises UsageError that names every id that is not in the report of `where`, each with the nearest one.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return self
        known = [row.id for row in self.rows]
        if unknown := [name for name in wanted if name not in known]:
            raise UsageError("\n".join(f"{where}: no row {name!r} in it; {perhaps(name, known)}" for name in unknown))
        rows = tuple(row for row in self.rows if row.id in wanted)
        return replace(self, rows=rows, seconds=sum(row.build_seconds + row.check_seconds for row in rows), storage={})

    def to_json(self) -> dict[str, Any]:
        """Return the report as `report.json` holds it."""
        return {
            "schema": SCHEMA,
            "level": self.level.value,
            "as_expected": self.as_expected,
            "started": self.started,
            "seconds": round(self.seconds, 1),
            "engine": self.engine,
            "storage": self.storage,
            "rows": [row.to_json() for row in self.rows],
        }


def read(path: Path) -> Report:
    """Read a `report.json`.

    Raises UsageError, naming the file, when it is missing, is not a report, or has another schema.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(raw, ensure_ascii=False).encode("utf-8")  # half a character, which JSON can hold, no page can
    except FileNotFoundError:
        raise UsageError(f"{path}: no such report; run `assay matrix` first, or name another folder") from None
    except OSError as error:
        raise UsageError(f"{path}: not a readable report: {error.strerror}; name another") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: not a readable report: {error}; run `assay matrix` again, or name another"
        ) from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise UsageError(
            f"{path}: report schema {found!r}, and this assay reads schema {SCHEMA}: read it with the assay that wrote "
            "it, or run `assay matrix` again"
        )
    try:
        storage = _take(raw, "storage", dict)
        return Report(
            level=Level(raw["level"]),
            rows=tuple(RowReport.from_json(row) for row in _take(raw, "rows", list)),
            started=_take(raw, "started", str),
            seconds=float(_take(raw, "seconds", float, int)),
            engine=_take(raw, "engine", str),
            storage={key: _size(storage, key) for key in ("total", "shared")} if storage else {},
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{path}: a report with a part missing or broken ({error!r}): run `assay matrix` again, or name another"
        ) from error
