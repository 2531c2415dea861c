"""Find the line of every key and element of a TOML text.

TOML libraries return values without positions. This walks a text that is already known to be valid TOML (`tomli` has
parsed it) and notes where each path begins, so it needs no error handling and can read less than a full parser does.
"""

from __future__ import annotations

import re
from bisect import bisect_right

import tomli

TomlPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Longest delimiters first. A multi-line string may end in up to two quotes of its own before the closing three.
_STRING = re.compile(
    r"'''[\s\S]*?'''(?:'{0,2}(?!'))"
    r'|"""(?:\\[\s\S]|[^\\])*?"""(?:"{0,2}(?!"))'
    r"|'[^'\n]*'"
    r'|"(?:\\.|[^"\\\n])*"'
)
_SCALAR = re.compile(r"[^,\]\}\n#]+")


def lines(text: str) -> dict[TomlPath, int]:
    """Return the line (from 1) where each path of a valid TOML text begins.

    A path is made of keys and array indices: `("row", 1, "flash-attn", "nvcc")`. A table that is written in several
    places has the line of its first.
    """
    return _Walker(text).walk()


def line_of(path: TomlPath, known: dict[TomlPath, int]) -> int | None:
    """Return the line of a path, or of the nearest thing around it that the text holds, or None."""
    for length in range(len(path), 0, -1):
        if path[:length] in known:
            return known[path[:length]]
    return None


class _Walker:
    """One pass over the text; `position` is the next character to read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.found: dict[TomlPath, int] = {}
        self.lengths: dict[TomlPath, int] = {}  # of the arrays of tables
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def walk(self) -> dict[TomlPath, int]:
        table: TomlPath = ()
        while True:
            self.skip(_BLANK)
            if self.position >= len(self.text):
                return self.found
            if self.text.startswith("[", self.position):
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> TomlPath:
        """Read `[a.b]` or `[[a.b]]` and return the table that the following keys belong to."""
        start = self.position
        is_array = self.text.startswith("[[", start)
        self.position += 2 if is_array else 1
        *parents, last = self.keys()
        self.position += 2 if is_array else 1
        path: TomlPath = ()
        for key in parents:
            path = self.enter((*path, key))
        path = (*path, last)
        self.note(path, start)
        if is_array:
            index = self.lengths.get(path, 0)
            self.lengths[path] = index + 1
            path = (*path, index)
            self.note(path, start)
        return path

    def enter(self, path: TomlPath) -> TomlPath:
        """Return the table that a header's path means: of an array of tables, the last one so far."""
        return (*path, self.lengths[path] - 1) if path in self.lengths else path

    def pair(self, table: TomlPath) -> None:
        """Read `key = value`."""
        start = self.position
        path = table
        for key in self.keys():
            path = (*path, key)
            self.note(path, start)
        self.position += 1  # "="
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: TomlPath) -> None:
        """Read a value, and note what is inside it."""
        opening = self.text[self.position]
        if opening == "[":
            self.position += 1
            index = 0
            while self.more("]"):
                self.note((*path, index), self.position)
                self.value((*path, index))
                index += 1
        elif opening == "{":
            self.position += 1
            while self.more("}"):
                self.pair(path)
        elif not self.skip(_STRING):
            self.skip(_SCALAR)

    def more(self, closing: str) -> bool:
        """Move to the next element of an array or inline table, or past its end."""
        self.skip(_BLANK)
        if self.text.startswith(",", self.position):
            self.position += 1
            self.skip(_BLANK)
        if self.text.startswith(closing, self.position):
            self.position += 1
            return False
        return True

    def keys(self) -> list[str]:
        """Read a dotted key."""
        keys = []
        while True:
            self.skip(_SPACE)
            start = self.position
            if self.skip(_STRING):
                keys.append(_unquote(self.text[start : self.position]))
            else:
                self.skip(_BARE_KEY)
                keys.append(self.text[start : self.position])
            self.skip(_SPACE)
            if not self.text.startswith(".", self.position):
                return keys
            self.position += 1

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Move past a match, and say whether there was anything to move past."""
        match = pattern.match(self.text, self.position)
        if match is None or match.end() == self.position:
            return False
        self.position = match.end()
        return True

    def note(self, path: TomlPath, position: int) -> None:
        self.found.setdefault(path, bisect_right(self.line_starts, position))


def _unquote(key: str) -> str:
    """Return a quoted key's name; the parser itself knows the escapes best."""
    return str(next(iter(tomli.loads(f"{key} = 0"))))
