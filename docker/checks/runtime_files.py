"""The drawing pipeline and the sample model that are baked in, against the files that they were baked from.

A model that is damaged a little still draws well enough for a grader; its hash tells at once.
"""

from __future__ import annotations

from pathlib import Path

from .files import hashed
from .framework import Answer, Expect, check, failed, passed
from .sample import RUNTIME, draws


@check(
    "runtime.unmodified",
    "Is every file of the drawing pipeline and of its model the one that was baked in?",
    applies=draws,
)
def unmodified(expect: Expect) -> Answer:
    """Hash every file of the runtime, and look for files that nobody baked in."""
    return compare(expect["runtime_files"], RUNTIME)


def compare(wanted: dict[str, str], folder: str) -> Answer:
    """Return the answer for a folder. wanted: path below it -> sha256 in hex. Cached bytecode is nobody's file."""
    required = f"the {len(wanted)} files of the runtime in {folder}, unchanged, and no others"
    problems = []
    total = 0
    for path, sha256 in wanted.items():
        actual = hashed(str(Path(folder) / path))
        if actual.digest is None:
            problems.append(f"{path} {actual.problem}")
        elif actual.digest != sha256:
            problems.append(f"{path} was changed: sha256 {actual.digest}, baked in {sha256}")
        total += actual.size
    for found in sorted(Path(folder).rglob("*")):
        path = found.relative_to(folder).as_posix()
        if found.is_file() and path not in wanted and "__pycache__" not in found.parts:
            problems.append(f"{path} was not baked in")
    if problems:
        return failed(required, f"problems: {len(problems)}, such as {problems[0]}", "\n".join(problems))
    return passed(
        required, f"{len(wanted)} files, {total / 1e6:.1f} MB, all as baked in", files=len(wanted), bytes=total
    )
