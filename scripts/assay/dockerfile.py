"""Splits a Dockerfile into its instructions, the way Docker does, as far as this project has to know."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Instructions that BuildKit counts as steps of a stage.
COUNTED = frozenset({"RUN", "COPY", "ADD", "WORKDIR"})
# A word of its own that begins with `<<`: `<<<` is a shell's here-string, and `1<<N` is arithmetic.
HEREDOC = re.compile(r"(?<!\S)\d*<<-?[\"']?(?P<word>[A-Za-z_][A-Za-z0-9_]*)[\"']?")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction of a Dockerfile: the line that it starts on (from 1), its stage, and its text on one line.

    heredoc: whether lines that follow it belong to it.
    """

    line: int
    stage: str
    stage_from: str
    keyword: str
    text: str
    heredoc: bool = False


def parse(dockerfile_text: str) -> list[Instruction]:
    """Split a Dockerfile into its instructions. Stages without a name are `stage-0`, `stage-1`, as in BuildKit."""
    instructions: list[Instruction] = []
    lines = dockerfile_text.splitlines()
    stage, stage_from, stages, index = "", "", 0, 0
    while index < len(lines):
        start = index
        if not lines[index].strip() or lines[index].lstrip().startswith("#"):
            index += 1
            continue
        pieces: list[str] = []
        while index < len(lines):
            line = lines[index].strip()
            index += 1
            if line.startswith("#") or (pieces and not line):
                continue  # comments and empty lines may stand inside a continued instruction
            continued = line.endswith("\\")
            pieces.append(line.removesuffix("\\"))
            if not continued:
                break
        text = one_line(" ".join(pieces))
        keyword = text.split(" ", 1)[0].upper()
        heredocs = list(HEREDOC.finditer(text)) if keyword in COUNTED else []
        for heredoc in heredocs:
            while index < len(lines) and lines[index].strip() != heredoc["word"]:
                index += 1
            index += 1
        if keyword == "FROM":
            words = text.split(" ")
            names = [word for word in words[1:] if not word.startswith("--")]
            stage_from = names[0] if names else ""
            stage = names[2].lower() if len(names) == 3 and names[1].upper() == "AS" else f"stage-{stages}"
            stages += 1
        instructions.append(
            Instruction(
                line=start + 1,
                stage=stage,
                stage_from=stage_from,
                keyword=keyword,
                text=text,
                heredoc=bool(heredocs),
            )
        )
    return instructions


def one_line(text: str) -> str:
    """Return a text with every run of blanks and line breaks as one blank."""
    return re.sub(r"\s+", " ", text).strip()
