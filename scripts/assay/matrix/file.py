"""Read a matrix file: shape, rows, rules; all problems at once, or the rows."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from assay.errors import MatrixError, UsageError
from assay.findings import Level
from assay.matrix import own, rules, shape
from assay.matrix.draft import Draft, drafts
from assay.matrix.locate import TomlPath, line_of, lines
from assay.matrix.row import FlashAttn, Reason, Row
from assay.matrix.rule import Context
from assay.matrix.schema import PublishTable, RowFields
from assay.releases import Releases
from assay.releases import load as load_releases
from assay.suggest import perhaps


@dataclass(frozen=True, kw_only=True)
class Publish:
    """What publishing asks for: the level of a row's certificate, and the first part of its full tag."""

    level: Level = Level.GPU
    prefix: str = "exp0.1"


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The rows of a file, those of the axes first, in the order in which the file makes them."""

    path: Path
    rows: tuple[Row, ...]
    publish: Publish = Publish()

    def select(self, ids: Iterable[str] = ()) -> tuple[Row, ...]:
        """Return the rows with these ids in the file's order; all rows when none is named.

        Raises UsageError that names every id that does not exist, each with the nearest one.
        """
        wanted = list(dict.fromkeys(ids))
        known = [row.id for row in self.rows]
        if unknown := [name for name in wanted if name not in known]:
            raise UsageError("\n".join(f"{self.path}: no row {name!r}; {perhaps(name, known)}" for name in unknown))
        return tuple(row for row in self.rows if not wanted or row.id in wanted)


def load(path: Path, *, known_checks: Collection[str] | None = None, releases: Releases | None = None) -> Matrix:
    """Read and check a matrix file.

    known_checks: ids that `because` may name beside `build.<part>`; None holds them against their form only.
    releases: the tables to look names up in, by default the package's own.

    Raises MatrixError with every problem of the file, a line each: `FILE:LINE: where: what is wrong; the nearest name`.
    """
    try:
        return _load(path, known_checks, releases)
    except RecursionError:
        raise MatrixError([f"{path}: it nests arrays or tables deeper than any row needs; flatten them"]) from None


def _load(path: Path, known_checks: Collection[str] | None, releases: Releases | None) -> Matrix:
    text = _read(path)
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise MatrixError([_toml_problem(path, text, error)]) from error
    releases = releases or load_releases()
    cleaned, departures = shape.check(raw)
    found = [(departure.path, departure.message) for departure in departures]
    rows, problems = drafts(cleaned)
    context = Context(releases, known_checks, path.resolve().parent, [departure.path for departure in departures])
    found += problems
    for draft in rows:
        found += rules.problems(draft, context)
    found += rules.together(rows)
    if not rows and not found:
        found.append(((), "it holds no row; add a [[row]] or [axes]"))
    if found:
        raise MatrixError(_in_words(path, text, raw, found))
    publish = PublishTable.model_validate(cleaned.get("publish", {}))
    return Matrix(
        path=path,
        rows=tuple(_row(draft, releases, publish, context.folder) for draft in rows),
        publish=Publish(level=Level(publish.level), prefix=publish.prefix),
    )


def _read(path: Path) -> str:
    """Return the file's text, without the mark that some editors begin a UTF-8 file with (TOML knows none)."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MatrixError(
            [f"{path}: the matrix file cannot be read: {error.strerror}; name one with --matrix"]
        ) from error
    except UnicodeDecodeError as error:
        # The error counts from behind the mark.
        line = path.read_bytes().removeprefix(codecs.BOM_UTF8)[: error.start].count(b"\n") + 1
        raise MatrixError([f"{path}:{line}: not valid TOML: byte {error.start} is no UTF-8"]) from error


def _toml_problem(path: Path, text: str, error: tomli.TOMLDecodeError) -> str:
    """Turn `... (at line 3, column 5)` into the form that editors follow."""
    message, place = str(error), ""
    if at := re.search(r" \(at line (\d+), column (\d+)\)$", message):
        message, place = message[: at.start()], f":{at[1]}:{at[2]}"
    elif message.endswith(" (at end of document)"):
        place = f":{len(text.splitlines())}"
    return f"{path}{place}: not valid TOML: {message}"


def _in_words(path: Path, text: str, raw: dict[str, Any], found: Iterable[tuple[TomlPath, str]]) -> list[str]:
    """Return the problems as lines in the order of the file, each once."""
    known = lines(text)
    placed = [(line_of(at, known), _subject(at, raw), message) for at, message in found]
    placed.sort(key=lambda problem: problem[0] or 0)
    return list(
        dict.fromkeys(
            f"{path}{f':{line}' if line else ''}: {f'{subject}: ' if subject else ''}{message}"
            for line, subject, message in placed
        )
    )


def _subject(path: TomlPath, raw: dict[str, Any]) -> str:
    """Name what a path is in: `row 'cu120'`, `axes.include 2`, `defaults`."""
    if path[:1] == ("row",) and len(path) > 1 and isinstance(path[1], int):
        tables = raw.get("row")
        table = tables[path[1]] if isinstance(tables, list) else None
        name = table.get("id") if isinstance(table, dict) else None
        return f"row {name!r}" if isinstance(name, str) else f"row {path[1] + 1}"
    if path[:1] == ("axes",) and path[1:2] in (("include",), ("exclude",)) and len(path) > 2:
        return f"axes.{path[1]} {int(path[2]) + 1}"
    return str(path[0]) if len(path) > 1 else ""


def _row(draft: Draft, releases: Releases, publish: PublishTable, folder: Path) -> Row:
    """Make the row that everything else works with: names instead of aliases, tuples instead of lists."""
    fields: RowFields = draft.fields()
    flash_attn = fields.flash_attn
    if fields.expect is None:  # the rules have seen to it
        raise MatrixError([f"row {draft.id!r} does not say what is expected"])
    compiled = flash_attn.source in ("auto", "compile")
    return Row(
        id=draft.id,
        expect=fields.expect,
        because=tuple(Reason(check=reason.check, matches=reason.matches) for reason in fields.because),
        what=fields.what,
        base=fields.base,
        cuda=releases.cuda(fields.cuda).name,
        toolkit=fields.toolkit,
        library_path=fields.library_path,
        torch=fields.torch,
        python=fields.python,
        flash_attn=FlashAttn(
            version=flash_attn.version,
            source=flash_attn.source,
            nvcc=releases.compiler(flash_attn.nvcc).name if compiled else flash_attn.nvcc,
            head_dims=tuple(flash_attn.head_dims),
            dtypes=tuple(flash_attn.dtypes),
            archs=tuple(flash_attn.archs),
            url=flash_attn.url,
            sha256=flash_attn.sha256,
        ),
        runtime=fields.runtime,
        gpus=tuple(fields.gpus),
        runner=tuple(fields.runner),
        env=tuple(fields.env.items()),
        files=tuple(fields.files.items()),
        requirements=own.resolve(fields.requirements, folder),
        dockerfile=fields.dockerfile or None,
        context=(fields.context or None) if fields.dockerfile else None,
        optional_libraries=tuple(dict.fromkeys(fields.optional_libraries)),
        content=own.content(fields, folder),
        tags=tuple(dict.fromkeys(fields.tags)),
        required_level=Level(fields.required_level or publish.level),
    )
