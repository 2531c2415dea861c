"""Splits a Dockerfile into its instructions, the way Docker does, as far as this project has to know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Instructions that BuildKit counts as steps of a stage.
COUNTED = frozenset({"RUN", "COPY", "ADD", "WORKDIR"})
# Those that may have heredocs, also behind ONBUILD.
_WITH_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})

# A backslash at a line's end, blanks behind it allowed, goes on in the next line. Where there are two or more, BuildKit
# takes them for backslashes that are meant; that of Engine 20.10 takes the last one for a continuation all the same.
_CONTINUED = re.compile(r"(?<!\\)\\[ \t]*$")
_SEVERAL = re.compile(r"\\\\[ \t]*$")

_DOUBLE = r'"(?:\\.|[^"\\])*"'
_VARIABLE = rf"\$\{{(?:\w+|[@*#?$!-])(?:[-:+?#%/](?:\\.|'[^']*'|{_DOUBLE}|[^}}'\"\\])*)?\}}"
# What a line is made of for BuildKit, which looks for heredocs among its words: `<<EOF` in quotes is none.
_PIECE = re.compile(
    rf"(?P<quoted>\\.|'[^']*'|{_DOUBLE}|{_VARIABLE})|(?P<blank>\s+)|(?P<bad>['\"]|\$\{{)|(?P<plain>.)", re.DOTALL
)
# A word that begins with `<<`: `<<<` is a shell's here-string, and `1<<N` is arithmetic.
_HEREDOC = re.compile(r"\d*<<(?P<tabs>-?)(?P<word>[^<]+)")
_BARE = re.compile(r"\d*<<-?")
_QUOTES = re.compile(r"""\\(.)|'([^']*)'|"([^"]*)\"""")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction of a Dockerfile: the line that it starts on (from 1), its stage, and its text on one line.

    heredoc: whether lines that follow it belong to it. unclear: what in it Docker Engines read differently, empty where
    all agree.
    """

    line: int
    stage: str
    stage_from: str
    keyword: str
    text: str
    heredoc: bool = False
    unclear: str = ""


@dataclass(frozen=True, kw_only=True)
class Heredoc:
    """The word that ends a heredoc on a line of its own, and whether tabs may stand before it there (`<<-`)."""

    word: str
    tabs: bool

    def ends_at(self, line: str) -> bool:
        """Say whether a line is the heredoc's last: just the word, without a blank more."""
        return (line.lstrip("\t") if self.tabs else line) == self.word


def parse(dockerfile_text: str) -> list[Instruction]:
    """Split a Dockerfile into its instructions. Stages without a name are `stage-0`, `stage-1`, as in BuildKit."""
    instructions: list[Instruction] = []
    lines = split_lines(dockerfile_text)
    stage, stage_from, stages, index = "", "", 0, 0
    while index < len(lines):
        start = index
        if _is_empty(lines[index]) or _is_comment(lines[index]):
            index += 1
            continue
        whole, unclear = "", ""
        while index < len(lines):
            line = lines[index]
            index += 1
            if index > start + 1 and (_is_comment(line) or _is_empty(line)):
                continue  # both may stand inside a continued instruction
            whole += _CONTINUED.sub("", line)
            unclear = unclear or ("a line that ends in several backslashes" if _SEVERAL.search(line) else "")
            if not _CONTINUED.search(line):
                break
        text = one_line(whole)
        words = text.split(" ")
        keyword = words[0].upper()
        heredocs: list[Heredoc] = []
        if keyword in _WITH_HEREDOCS or (keyword == "ONBUILD" and words[1:2] and words[1].upper() in _WITH_HEREDOCS):
            shell_words = _shell_words(whole)
            heredocs = list(_heredocs(shell_words))
            if any(_BARE.fullmatch(word) for word in shell_words[:-1]):
                unclear = unclear or "`<<` with a blank behind it"
        for heredoc in heredocs:
            while index < len(lines) and not heredoc.ends_at(lines[index]):
                index += 1
            index += 1
        if keyword == "FROM":
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
                unclear=unclear,
            )
        )
    return instructions


def split_lines(text: str) -> list[str]:
    """Return a Dockerfile's lines as Docker counts them: only a line feed ends one, or CR and LF."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def one_line(text: str) -> str:
    """Return a text with every run of blanks and line breaks as one blank."""
    return re.sub(r"\s+", " ", text).strip()


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _is_empty(line: str) -> bool:
    return not line.strip()


def _shell_words(line: str) -> list[str]:
    """Return a line's words with their quotes, none where a quote or a `${` has no end that BuildKit knows."""
    words = [""]
    for piece in _PIECE.finditer(line):
        if piece["bad"] or re.search(r"\$\{", re.sub(rf"\\.|{_VARIABLE}", "", _double_quoted(piece["quoted"]))):
            return []
        if piece["blank"]:
            words.append("")
        else:
            words[-1] += piece[0]
    return [word for word in words if word]


def _double_quoted(piece: str | None) -> str:
    return piece if piece and piece.startswith('"') else ""


def _heredocs(words: list[str]) -> Iterator[Heredoc]:
    for word in words:
        if found := _HEREDOC.fullmatch(word):
            yield Heredoc(
                word=_QUOTES.sub(lambda part: "".join(part.groups("")), found["word"]), tabs=bool(found["tabs"])
            )
