"""Reads and writes hash-pinned Python requirements: those that a row adds of its own, and the project's own locks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_COMMENT = re.compile(r"(^|\s)#.*$")
# Options of a requirements file that say where packages come from.
_OF_THE_INDEX = ("-i", "-f", "--index-url", "--extra-index-url", "--find-links", "--trusted-host", "--no-index")

Problem = tuple[int, str]
"""A line of the file, from 1, and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One package of a file: normalised name, version, sha256 of the files that may be installed, and its line."""

    name: str
    version: str
    hashes: tuple[str, ...]
    line: int


@dataclass(frozen=True, kw_only=True)
class RequirementsFile:
    """What a file holds, everything that is wrong with it, and the sha256 of its bytes."""

    pins: tuple[Pin, ...]
    problems: tuple[Problem, ...]
    sha256: str


def read(path: Path) -> RequirementsFile:
    """Read a file of which every line has to be `NAME==VERSION` with hashes, and nothing else.

    Raises OSError when it cannot be read.
    """
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return RequirementsFile(pins=(), problems=((line, "no UTF-8: save the file in that encoding"),), sha256=sha256)
    pins, problems = parse(text)
    return RequirementsFile(pins=pins, problems=problems, sha256=sha256)


def parse(content: str) -> tuple[tuple[Pin, ...], tuple[Problem, ...]]:
    """Return the pins of a file's content, and everything that is wrong with it; an entry may give both."""
    pins: dict[str, Pin] = {}
    problems: list[Problem] = []
    for tokens in _entries(content):
        found, pin = _entry(tokens)
        problems += found
        if pin and pin.name in pins and not found:
            problems.append((pin.line, f"{pin.name} stands in line {pins[pin.name].line} already: keep one of them"))
        elif pin:
            pins.setdefault(pin.name, pin)
    return tuple(pins.values()), tuple(problems)


def text(pins: Iterable[Pin]) -> str:
    """Return pins as a requirements file."""
    return "".join(
        f"{pin.name}=={pin.version}" + "".join(f" \\\n    --hash=sha256:{one}" for one in pin.hashes) + "\n"
        for pin in pins
    )


Token = tuple[int, str]


def _entries(content: str) -> Iterator[list[Token]]:
    """Yield each requirement or option with what belongs to it, every token with its line."""
    tokens: list[Token] = []
    for number, line in enumerate(content.splitlines(), start=1):
        code = _COMMENT.sub("", line).strip()
        continued = code.endswith("\\")
        code = code.removesuffix("\\").strip()
        if code:
            tokens += [(number, token) for token in re.split(r"\s+(?=-)", code)]
        if tokens and not continued:
            yield tokens
            tokens = []
    if tokens:
        yield tokens


def _entry(tokens: list[Token]) -> tuple[list[Problem], Pin | None]:
    """Return what is wrong with an entry, and its pin where it has one."""
    (line, requirement), *rest = tokens
    if requirement.startswith("-"):
        return [(line, _why_not(requirement))], None
    asked = _parsed(requirement)
    version = _one_version(asked) if asked else None
    if asked is None or version is None:
        # An address may hold a password, so it is not said again.
        placed = "@" in requirement or "://" in requirement
        what = "a package by its address" if placed else f"{_short(requirement)} is not pinned to one version"
        return [
            (line, f"{what}: write NAME==VERSION --hash=sha256:..., as `uv pip compile --generate-hashes` does")
        ], None
    problems, hashes = [], []
    if asked.marker:
        problems.append(
            (
                line,
                f"{_short(requirement)} has a condition: lock for the row's Python alone, and leave out what it skips",
            )
        )
    for number, token in rest:
        if digest := _HASH.fullmatch(token):
            hashes.append(digest[1])
        elif token.startswith("--hash"):
            problems.append(
                (number, f"{_short(token)} is no hash that is taken here: write --hash=sha256:<64 hex digits>")
            )
        else:
            problems.append((number, _why_not(token)))
    if not hashes and not problems:
        problems.append(
            (
                line,
                f"{_short(requirement)} has no hash: add --hash=sha256:..., as `uv pip compile --generate-hashes` does",
            )
        )
    return problems, Pin(name=canonicalize_name(asked.name), version=version, hashes=tuple(hashes), line=line)


def _parsed(requirement: str) -> Requirement | None:
    try:
        return Requirement(requirement)
    except InvalidRequirement:
        return None


def _one_version(asked: Requirement) -> str | None:
    """Return the version that a requirement pins with `==`, None where it allows others or names an address."""
    specifiers = list(asked.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith(".*"):
        return None
    return specifiers[0].version


def _why_not(option: str) -> str:
    name = re.split(r"[\s=]", option, maxsplit=1)[0]  # without its value, which may hold a password
    if name in _OF_THE_INDEX:
        return f"{name!r}: packages come from the index that this machine's pip and uv are set to; leave the line out"
    return f"{name!r}: a row's requirements are packages with == and --hash, without options; leave it out"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
