"""Finds the part of a Dockerfile that a build step belongs to.

Parts are marked in the Dockerfile by comment lines: `# part: torch` opens the part `torch`, up to the next such line.
BuildKit names a step `[torch 2/4] RUN ...`: stage, position in the stage, instruction. The classic builder says
`Step 7/12 : RUN ...`, counted over the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Instructions that BuildKit counts as steps of a stage.
COUNTED = frozenset({"RUN", "COPY", "ADD", "WORKDIR"})
PART = re.compile(r"^#\s*part:\s*(?P<part>\S+)\s*$")
HEREDOC = re.compile(r"<<-?\s*[\"']?(?P<word>[A-Za-z_][A-Za-z0-9_]*)[\"']?")
BUILDKIT_STEP = re.compile(
    r"^\[(?:\S+/\S+\s+)?(?:(?P<stage>[^\s/]+)\s+)?(?P<position>\d+)/\d+\]\s+(?P<text>.*)$", re.DOTALL
)
CLASSIC_STEP = re.compile(r"^Step (?P<position>\d+)/\d+ : (?P<text>.*)$", re.DOTALL)
UNKNOWN_PART = "unknown"


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction of a Dockerfile: the line that it starts on (from 1), its stage, and its text on one line."""

    line: int
    stage: str
    stage_from: str
    keyword: str
    text: str


def part_of_step(dockerfile_text: str, step: str) -> str:
    """Return the part that a step belongs to, `unknown` where the name leads to no instruction."""
    instruction = find_instruction(parse(dockerfile_text), step)
    return part_of_line(dockerfile_text, instruction.line) if instruction else UNKNOWN_PART


def part_of_line(dockerfile_text: str, line: int) -> str:
    """Return the part that a line (from 1) of the Dockerfile belongs to, `unknown` before the first mark."""
    part = UNKNOWN_PART
    for text in dockerfile_text.splitlines()[:line]:
        if mark := PART.match(text.strip()):
            part = mark["part"]
    return part


def find_instruction(instructions: Sequence[Instruction], step: str) -> Instruction | None:
    """Return the instruction that a step carries out.

    The text decides where it is unique; BuildKit shows variables expanded, so the position is the other clue.
    """
    if classic := CLASSIC_STEP.match(step):
        index = int(classic["position"]) - 1
        return instructions[index] if index < len(instructions) else None
    match = BUILDKIT_STEP.match(step)
    if not match:
        return None
    stages = [instruction.stage for instruction in instructions if instruction.keyword == "FROM"]
    stage = match["stage"] or (stages[0] if stages else "")
    own = [instruction for instruction in instructions if instruction.stage == stage]
    wanted = _one_line(match["text"])
    same_text = [instruction for instruction in own if instruction.text == wanted]
    if len(same_text) == 1:
        return same_text[0]
    steps = [instruction for instruction in own if _is_step(instruction, stages)]
    index = int(match["position"]) - 1
    return steps[index] if index < len(steps) else None


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
        text = _one_line(" ".join(pieces))
        keyword = text.split(" ", 1)[0].upper()
        if keyword in COUNTED:
            for heredoc in HEREDOC.finditer(text):
                while index < len(lines) and lines[index].strip() != heredoc["word"]:
                    index += 1
                index += 1
        if keyword == "FROM":
            words = text.split(" ")
            names = [word for word in words[1:] if not word.startswith("--")]
            stage_from = names[0] if names else ""
            stage = names[2].lower() if len(names) == 3 and names[1].upper() == "AS" else f"stage-{stages}"
            stages += 1
        instructions.append(Instruction(line=start + 1, stage=stage, stage_from=stage_from, keyword=keyword, text=text))
    return instructions


def _is_step(instruction: Instruction, stages: Sequence[str]) -> bool:
    """Tell whether BuildKit counts the instruction: FROM counts when it fetches an image, not for another stage."""
    if instruction.keyword == "FROM":
        return instruction.stage_from != "scratch" and instruction.stage_from.lower() not in stages
    return instruction.keyword in COUNTED


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
