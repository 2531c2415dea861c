"""A row's own Dockerfile instructions: whether they can end an image that assay composes, and the files they copy."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from assay.dockerfile import Instruction, parse, split_lines
from assay.suggest import perhaps

OWN = "own"
"""The part's name, and the folder of the build context that its files lie in."""

Problem = tuple[int, str]
"""A line of the fragment, from 1, and what is wrong with it."""

_KEYWORDS = frozenset({
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "RUN",
    "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
})  # fmt: skip
_DIRECTIVE = re.compile(r"#\s*(?P<name>syntax|escape|check)\s*=", re.IGNORECASE)
_PART = re.compile(r"\s*#\s*part:")
_WILDCARD = re.compile(r"[*?\[]")
_ELSEWHERE = re.compile(r"https?://|git@|git://|ssh://")  # what ADD fetches
_END = "LABEL end"
# Flags that the classic builder knows; all others, and every flag of RUN, are BuildKit's.
_CLASSIC_FLAGS = ("--from", "--chown")


def problems(text: str, context: Path | None) -> Iterator[Problem]:
    """Yield what keeps a fragment from being the end of a composed Dockerfile, on whatever engine.

    context: the folder that stands for `own/`, None where the row names none.
    """
    for number, line in enumerate(split_lines(text), start=1):
        directive = _DIRECTIVE.match(line)
        if directive is None:
            break  # Docker, too, looks for them at the very top only
        yield number, f"`# {directive['name']}=` can only begin a whole Dockerfile, and assay writes that: leave it out"
    for number, line in enumerate(split_lines(text), start=1):
        if _PART.match(line):
            yield number, "a comment `# part:` is how assay marks the parts of a Dockerfile: word it differently"
    *instructions, last = parse(f"{text.rstrip()}\n{_END}\n")
    if last.text != _END:
        yield last.line, "this instruction has no end: a last line ends in a backslash, or a heredoc is not closed"
        instructions.append(last)
    if not instructions:
        yield 1, "it holds no instruction; leave `dockerfile` out where there is nothing to add"
    for instruction in instructions:
        yield from ((instruction.line, message) for message in _wrong(instruction, context))


def unsupported(text: str, *, mounts: bool, heredocs: bool) -> Iterator[Problem]:
    """Yield what the engine's builder does not know. mounts: it is BuildKit. heredocs: it is of Engine 23 or newer."""
    for instruction in parse(text):
        if instruction.heredoc and not heredocs:
            yield (
                instruction.line,
                "a heredoc needs BuildKit of Docker Engine 23 or newer (`--link` for `assay compose`): put the text "
                f"into a file, and copy it from {OWN}/",
            )
        flags = [
            flag.partition("=")[0] for flag in _flags(instruction) if instruction.keyword in ("RUN", "COPY", "ADD")
        ]
        newer = [flag for flag in flags if instruction.keyword == "RUN" or flag not in _CLASSIC_FLAGS]
        if newer and not mounts:
            yield instruction.line, f"{instruction.keyword} {newer[0]} needs BuildKit, which this engine does not have"


def context_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files below a folder in a fixed order, and what else is there: symbolic links, pipes, sockets.

    Links are refused wherever they lead: what they mean changes without any file of the folder changing. Python's
    caches are left out. Raises OSError for a folder that cannot be read.
    """
    files, others = [], []

    def unreadable(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for path in (Path(root, name) for name in (*folders, *names)):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                others.append(path)
            elif path.is_file() and path.suffix != ".pyc":
                files.append(path)
    return sorted(files), sorted(others)


def _wrong(instruction: Instruction, context: Path | None) -> Iterator[str]:
    keyword = instruction.keyword
    if instruction.unclear:
        yield (
            f"{instruction.unclear} means one thing to newer Docker Engines and another to older ones: put a quote or "
            "a word behind the backslashes, and write `<<EOF` for a heredoc and '<<' in quotes for anything else"
        )
    if keyword == "FROM":
        yield "FROM would begin another image: the fragment ends the one that the row's parts make, so leave it out"
    elif keyword not in _KEYWORDS:
        yield f"unknown instruction {keyword[:40]!r}; {perhaps(keyword[:40], _KEYWORDS)}"
    elif keyword in ("COPY", "ADD"):
        for source in _sources(instruction):
            yield from _wrong_source(keyword, source, context)
    elif keyword == "LABEL" and re.search(r"[\s\"']io\.assay\.", instruction.text):
        yield "labels that begin with io.assay. are what assay says of an image: choose another name"


def _wrong_source(keyword: str, source: str, context: Path | None) -> Iterator[str]:
    """Hold a path against `own/`: the rest of the context is assay's, and holds this machine's network settings."""
    path = PurePosixPath(source.lstrip("/"))
    shown = f"{keyword} {source if len(source) <= 60 else source[:57] + '...'}"
    if path.parts[:1] != (OWN,) or ".." in path.parts or "$" in source:
        yield f"{shown}: files come from the row's `context`, as {OWN}/PATH, written out without '..' and variables"
    elif context is None:
        yield f'{shown}: the row names no folder to copy from; add context = "FOLDER"'
    elif not _WILDCARD.search(source) and not context.joinpath(*path.parts[1:]).exists():
        yield f"{shown}: {PurePosixPath(*path.parts[1:])} does not exist in the row's `context` ({context.name})"


def _flags(instruction: Instruction) -> list[str]:
    flags = []
    for word in instruction.text.split(" ")[1:]:
        if not word.startswith("--"):
            break
        flags.append(word)
    return flags


def _sources(instruction: Instruction) -> list[str]:
    """Return the paths in the build context that COPY or ADD names."""
    flags = _flags(instruction)
    if any(flag.startswith("--from=") for flag in flags):
        return []
    rest = instruction.text.split(" ", 1 + len(flags))[1 + len(flags) :]
    words: list[str] = rest[0].split(" ") if rest else []
    if rest and rest[0].startswith("["):
        with contextlib.suppress(ValueError):  # then Docker, too, takes it for words
            words = [str(word) for word in json.loads(rest[0])]
    sources = [word.strip("\"'") for word in words[:-1]]
    return [word for word in sources if not word.startswith("<<") and not _ELSEWHERE.match(word)]
