"""Which part of a Dockerfile a build step belongs to."""

from __future__ import annotations

import pytest

from assay.dockerfile import Instruction, parse
from assay.engine.steps import part_of_line, part_of_step

DOCKERFILE = """\
# syntax is the engine's own
ARG BASE=debian:bookworm
# part: base
FROM ${BASE} AS base
ENV A=1
RUN echo one \\
    # a comment inside
    && echo $A

# part: torch
FROM base AS torch
WORKDIR /opt
RUN --mount=type=cache,target=/cache \\
    install torch
RUN true
COPY <<EOF /etc/file
RUN not an instruction
# part: not-a-part
EOF
# part: flash-attn
RUN true
# part: runtime
FROM torch
COPY --from=base /a \\
     /b
RUN echo last
"""


@pytest.mark.parametrize(
    ("step", "part"),
    [
        ("[base 1/2] FROM docker.io/library/debian:bookworm", "base"),
        ("[base 2/2] RUN echo one     && echo 1", "base"),  # the variable is shown expanded: the position tells
        ("[torch 1/5] WORKDIR /opt", "torch"),
        ("[torch 2/5] RUN --mount=type=cache,target=/cache     install torch", "torch"),
        ("[torch 3/5] RUN true", "torch"),  # the same text twice in one stage: the position tells
        ("[torch 5/5] RUN true", "flash-attn"),
        ("[stage-2 1/2] COPY --from=base /a      /b", "runtime"),
        ("[stage-2 2/2] RUN echo last", "runtime"),
        ("[linux/amd64 torch 1/5] WORKDIR /opt", "torch"),
        ("Step 6/12 : WORKDIR /opt", "torch"),
        ("[internal] load metadata for docker.io/library/debian:bookworm", "unknown"),
        ("[torch 99/99] RUN gone", "unknown"),
        ("exporting to image", "unknown"),
    ],
)
def test_a_step_leads_to_its_part(step: str, part: str) -> None:
    assert part_of_step(DOCKERFILE, step) == part


def test_a_single_unnamed_stage_has_steps_without_a_stage_name() -> None:
    text = "ARG X\n# part: a\nFROM scratch\nCOPY x /x\n# part: b\nRUN true\n"
    assert part_of_step(text, "[1/2] COPY x /x") == "a"
    assert part_of_step(text, "[2/2] RUN true") == "b"


def test_lines_belong_to_the_mark_above_them() -> None:
    assert [part_of_line("FROM x\n# part: a\nRUN 1\n#part: b\nRUN 2\n", line) for line in (1, 3, 5)] == [
        "unknown",
        "a",
        "b",
    ]


def test_instructions_carry_their_first_line_and_their_stage() -> None:
    found = [(entry.line, entry.stage, entry.keyword) for entry in parse(DOCKERFILE)]
    assert found == [
        (2, "", "ARG"),
        (4, "base", "FROM"),
        (5, "base", "ENV"),
        (6, "base", "RUN"),
        (11, "torch", "FROM"),
        (12, "torch", "WORKDIR"),
        (13, "torch", "RUN"),
        (15, "torch", "RUN"),
        (16, "torch", "COPY"),
        (21, "torch", "RUN"),
        (23, "stage-2", "FROM"),
        (24, "stage-2", "COPY"),
        (26, "stage-2", "RUN"),
    ]


def test_what_only_looks_like_a_heredoc_swallows_nothing() -> None:
    shell = """bash -c 'cat <<<"$x"; cat <<<word; echo $((1<<N)); cat << N'"""
    text = f'RUN {shell}\nRUN two\nRUN cat <<-"END"\nRUN inside\nEND\nRUN four\n'
    assert [(entry.line, entry.heredoc) for entry in parse(text)] == [(1, False), (2, False), (3, True), (6, False)]


def instructions(text: str) -> list[tuple[int, str]]:
    return [(entry.line, entry.text) for entry in parse(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN echo C:\\\\\nFROM evil\n", [(1, "RUN echo C:\\\\"), (2, "FROM evil")]),
        ("RUN echo C:\\\\ \t\nFROM evil\n", [(1, "RUN echo C:\\\\"), (2, "FROM evil")]),
        # BuildKit looks at no more than the backslash before the last one.
        ("RUN echo C:\\\\\\\nFROM evil\n", [(1, "RUN echo C:\\\\\\"), (2, "FROM evil")]),
        ("RUN echo \\ \t\n  on\n", [(1, "RUN echo on")]),
        ("RUN echo o\\\nn\n", [(1, "RUN echo on")]),
        ("\\\nRUN echo on\n", [(1, "RUN echo on")]),
        (
            "RUN echo \\\n  # no end of it \\\\\n\n \t\n  # nor here\n  on\nRUN two\n",
            [(1, "RUN echo on"), (7, "RUN two")],
        ),
        ("# a comment goes nowhere \\\nRUN echo on\n", [(2, "RUN echo on")]),
        ("RUN echo \\\r\n  on\r\nRUN two\r\n", [(1, "RUN echo on"), (3, "RUN two")]),
        ("RUN echo a\x0bb\u2028c\nRUN two\n", [(1, "RUN echo a b c"), (2, "RUN two")]),
    ],
)
def test_lines_are_joined_as_docker_joins_them(text: str, expected: list[tuple[int, str]]) -> None:
    assert instructions(text) == expected


def heredocs(text: str) -> list[tuple[int, bool]]:
    return [(entry.line, entry.heredoc) for entry in parse(text)]


@pytest.mark.parametrize(
    "line",
    [
        'RUN echo "x <<EOF"',
        "RUN echo 'x <<EOF'",
        "RUN echo x\\ <<EOF",
        'RUN echo "a\\" <<EOF"',
        'RUN ["sh", "-c", "cat <<EOF"]',
        "RUN echo it's <<EOF",  # BuildKit gives up where a quote has no end
        "RUN echo ${x^^} <<EOF",
        'RUN echo "${x^^}" <<EOF',
        "RUN cat<<EOF",
        "RUN cat << EOF",
        "WORKDIR /a <<EOF",
        "ENV A <<EOF",
        "ONBUILD WORKDIR <<EOF",
    ],
)
def test_no_heredoc_begins(line: str) -> None:
    assert heredocs(f"{line}\nFROM evil\nEOF\n") == [(1, False), (2, False), (3, False)]


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("RUN cat <<EOF", "EOF"),
        ("COPY 3<<EOF /x", "EOF"),
        ("ONBUILD RUN <<EOF", "EOF"),
        ("run cat <<'EOF' > \"$x\"", "EOF"),
        ('RUN cat <<"a b"', "a b"),
        ("RUN echo 'it''s' \"a \\\" b\" <<E-O.F", "E-O.F"),
        ("RUN echo ${x:-'}'} $y \"${z}\" <<EOF", "EOF"),
        ("RUN cat <<EOF; \\\n  # why\n  true", "EOF;"),
        ("RUN cat <<-EOF", "\t\tEOF"),
    ],
)
def test_a_heredoc_ends_at_its_word_and_nowhere_else(line: str, end: str) -> None:
    ends = ["EOF ", " EOF", "EOF\\", "eof"]
    if "<<-" not in line:
        ends.append("\tEOF")
    lines = "\n".join([line, "FROM evil \\", "# comment", "", *ends, end, "RUN two"])
    assert heredocs(lines) == [(1, True), (lines.count("\n") + 1, False)]


def test_two_heredocs_of_one_line_follow_each_other() -> None:
    assert heredocs("COPY <<A <<B /x/\nB\nA\nA\nB\nRUN two\n") == [(1, True), (6, False)]


@pytest.mark.parametrize(
    ("text", "unclear"),
    [
        ("RUN echo C:\\\\\nRUN two\n", True),
        ("RUN cat << EOF\n", True),
        ("RUN echo $((1 << N))\n", True),
        ("RUN echo 'a << b' C:\\\\a \\\n b\n", False),
        ("RUN <<EOF\nC:\\\\\na << b\nEOF\n", False),
        ("# C:\\\\\nRUN true\n", False),
    ],
)
def test_what_engines_read_differently_is_known(text: str, unclear: bool) -> None:
    first: Instruction = parse(text)[0]
    assert bool(first.unclear) is unclear
