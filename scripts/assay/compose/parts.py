"""The parts of an image, as the comment lines of its Dockerfile name them."""

from __future__ import annotations

import re

_MARK = re.compile(r"^# part: (?P<name>\S+)\s*$")


def part_of_line(dockerfile: str, line: int) -> str:
    r"""Return the part that a line of a Dockerfile belongs to.

    line: counted from 1, as Docker counts them.

    >>> part_of_line("# part: base\nFROM x\n# part: torch\nRUN y\n", 4)
    'torch'

    Raises ValueError for a line before the first part: comments and parser directives are all that stands there.
    """
    for text in reversed(dockerfile.splitlines()[:line]):
        if match := _MARK.match(text):
            return match["name"]
    raise ValueError(f"line {line} comes before the first `# part:` line of the Dockerfile")


def parts_of(dockerfile: str) -> tuple[str, ...]:
    """Return the parts of a Dockerfile in order, each once."""
    matches = (_MARK.match(line) for line in dockerfile.splitlines())
    return tuple(dict.fromkeys(match["name"] for match in matches if match))
