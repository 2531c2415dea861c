"""Finds the part of a Dockerfile that a build step belongs to.

Parts are marked in the Dockerfile by comment lines: `# part: torch` opens the part `torch`, up to the next such line.
BuildKit names a step `[torch 2/4] RUN ...`: stage, position in the stage, instruction. The classic builder says
`Step 7/12 : RUN ...`, counted over the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from assay.dockerfile import COUNTED, Instruction, one_line, parse, split_lines

PART = re.compile(r"^#\s*part:\s*(?P<part>\S+)\s*$")
BUILDKIT_STEP = re.compile(
    r"^\[(?:\S+/\S+\s+)?(?:(?P<stage>[^\s/]+)\s+)?(?P<position>\d+)/\d+\]\s+(?P<text>.*)$", re.DOTALL
)
CLASSIC_STEP = re.compile(r"^Step (?P<position>\d+)/\d+ : (?P<text>.*)$", re.DOTALL)
UNKNOWN_PART = "unknown"


def of_the_dockerfile(step: str) -> bool:
    """Tell whether a step carries out an instruction; the engine has steps of its own beside those."""
    return bool(BUILDKIT_STEP.match(step) or CLASSIC_STEP.match(step))


def part_of_step(dockerfile_text: str, step: str) -> str:
    """Return the part that a step belongs to, `unknown` where the name leads to no instruction."""
    instruction = find_instruction(parse(dockerfile_text), step)
    return part_of_line(dockerfile_text, instruction.line) if instruction else UNKNOWN_PART


def part_of_line(dockerfile_text: str, line: int) -> str:
    """Return the part that a line (from 1) of the Dockerfile belongs to, `unknown` before the first mark."""
    part = UNKNOWN_PART
    for text in split_lines(dockerfile_text)[:line]:
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
    wanted = one_line(match["text"])
    same_text = [instruction for instruction in own if instruction.text == wanted]
    if len(same_text) == 1:
        return same_text[0]
    steps = [instruction for instruction in own if _is_step(instruction, stages)]
    index = int(match["position"]) - 1
    return steps[index] if index < len(steps) else None


def _is_step(instruction: Instruction, stages: Sequence[str]) -> bool:
    """Tell whether BuildKit counts the instruction: FROM counts when it fetches an image, not for another stage."""
    if instruction.keyword == "FROM":
        return instruction.stage_from != "scratch" and instruction.stage_from.lower() not in stages
    return instruction.keyword in COUNTED
