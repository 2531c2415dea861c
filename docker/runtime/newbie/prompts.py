"""Read prompts: NewBie's XML, checked tag by tag, or plain text. Needs no torch.

    <character_1>
    <n>$character_1$</n>
    <gender>1girl</gender>
    <appearance>blue_hair, long_hair, golden_eyes</appearance>
    </character_1>
    <general_tags>
    <count>1girl</count>
    <background>forest</background>
    </general_tags>

The model was trained on such text as it stands, so the text itself goes to the text encoders, not what is parsed from
it. Parsing is for the person who writes it: a misspelt tag would be read as just another word, and draw something else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from xml.parsers import expat

from .errors import PromptError

MAX_BYTES = 16 * 1024
"""The text encoder reads 512 tokens, about 2 KiB; a prompt eight times as long is a mistake, or an attack."""
MAX_CHARACTERS = 8
CHARACTER_FIELDS = ("n", "gender", "appearance", "clothing", "expression", "action", "position")
GENERAL = "general_tags"
GENERAL_FIELDS = ("count", "style", "background", "atmosphere", "quality", "objects", "other")

_ROOT = "prompt"
"""Stands around the whole text while it is parsed: XML has one outermost tag, prompts have several."""
_CHARACTER = re.compile(r"character_([1-9][0-9]*)")
_LOOKS_LIKE_XML = re.compile(rf"\A\s*<|</?\s*(?:character_\w*|{GENERAL})\b")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Prompt:
    """A checked prompt.

    text: what the text encoders get. characters: for each character in order, its fields; general: the fields of
    `<general_tags>`; both empty for plain text.
    """

    text: str
    characters: tuple[dict[str, str], ...] = ()
    general: dict[str, str] | None = None

    @property
    def is_xml(self) -> bool:
        """Say whether the prompt is written in NewBie's tags."""
        return bool(self.characters) or self.general is not None


def parse(text: str) -> Prompt:
    """Check a prompt. Raises PromptError, naming tag and line, for XML that the model does not know.

    Text that starts with `<` or holds one of the outermost tags is XML; anything else is plain text.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise PromptError(f"the prompt is {size:,} bytes long; at most {MAX_BYTES:,} are read")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"{_line_of(text, error.start)}: the prompt is not valid Unicode: {error.reason}") from error
    control = _CONTROL.search(text)
    if control:
        raise PromptError(
            f"{_line_of(text, control.start())}: the prompt holds the control character U+{ord(control[0]):04X}; "
            "write plain text or XML"
        )
    if not text.strip():
        raise PromptError("the prompt is empty: write what the picture shows")
    if not _LOOKS_LIKE_XML.search(text):
        return Prompt(text.strip())
    return _Reader(text).prompt()


class _Reader:
    """Follows the tags as expat reports them, and stops at the first one that is wrong."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._path: list[str] = []
        self._groups: dict[str, dict[str, str]] = {}
        self._words: list[str] = []
        self._parser = expat.ParserCreate(encoding="UTF-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._refuse("<!DOCTYPE>")
        self._parser.EntityDeclHandler = self._refuse("<!ENTITY>")
        self._parser.ProcessingInstructionHandler = self._refuse("<?...?>")
        self._parser.XmlDeclHandler = self._refuse("<?xml?>")
        self._parser.CommentHandler = self._refuse("<!-- -->")
        self._parser.StartCdataSectionHandler = self._refuse("<![CDATA[]]>")

    def prompt(self) -> Prompt:
        """Parse the text."""
        try:
            # In pieces, so that lines count from the text's own first one.
            self._parser.Parse(f"<{_ROOT}>", False)
            self._parser.Parse(self._text, False)
            if self._path != [_ROOT]:
                raise self._error(f"<{self._path[-1]}> is never closed" if self._path else f"</{_ROOT}> closes nothing")
            self._parser.Parse(f"</{_ROOT}>", True)
        except expat.ExpatError as error:
            raise PromptError(self._explain(error)) from error
        numbers = [int(found[1]) for found in map(_CHARACTER.fullmatch, self._groups) if found]
        missing = sorted(set(range(1, len(numbers) + 1)) - set(numbers))
        if missing:
            raise PromptError(
                f"characters are numbered {', '.join(map(str, numbers))}: <character_{missing[0]}> is missing"
            )
        characters = tuple(self._groups[f"character_{number}"] for number in sorted(numbers))
        return Prompt(self._text.strip(), characters, self._groups.get(GENERAL))

    # What expat calls ------------------------------------------------------------------------------------------------

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if attributes:
            raise self._error(f"<{tag}> has an attribute, {next(iter(attributes))!r}; tags take none")
        if not self._path:
            self._path.append(tag)
            return
        if len(self._path) > 2:
            raise self._error(f"<{tag}> stands inside <{self._path[-1]}>, which holds text alone")
        self._require_no_text(f"before <{tag}>")
        if len(self._path) == 1:
            self._open_group(tag)
        else:
            self._open_field(self._path[1], tag)
        self._path.append(tag)

    def _end(self, tag: str) -> None:
        if len(self._path) == 3:
            self._groups[self._path[1]][tag] = " ".join("".join(self._words).split())
            self._words.clear()
        else:
            self._require_no_text(f"before </{tag}>")
        self._path.pop()

    def _characters(self, words: str) -> None:
        self._words.append(words)

    def _refuse(self, what: str) -> Callable[..., None]:
        def refuse(*_: object) -> None:
            raise self._error(f"{what} has no place in a prompt: write tags and text alone")

        return refuse

    # Rules -----------------------------------------------------------------------------------------------------------

    def _open_group(self, tag: str) -> None:
        numbered = _CHARACTER.fullmatch(tag)
        if numbered is None and tag != GENERAL:
            for fields, group in ((CHARACTER_FIELDS, "character_N"), (GENERAL_FIELDS, GENERAL)):
                if tag in fields:
                    raise self._error(f"<{tag}> belongs inside <{group}>")
            raise self._error(f"unknown tag <{tag}>{_nearest(tag, ('character_1', GENERAL))}")
        if numbered is not None and int(numbered[1]) > MAX_CHARACTERS:
            raise self._error(f"<{tag}>: at most {MAX_CHARACTERS} characters")
        if tag in self._groups:
            raise self._error(f"<{tag}> is there twice")
        self._groups[tag] = {}

    def _open_field(self, group: str, tag: str) -> None:
        fields = GENERAL_FIELDS if group == GENERAL else CHARACTER_FIELDS
        if tag not in fields:
            raise self._error(f"unknown tag <{tag}> in <{group}>{_nearest(tag, fields)}")
        if tag in self._groups[group]:
            raise self._error(f"<{tag}> is there twice in <{group}>")

    def _require_no_text(self, where: str) -> None:
        words = "".join(self._words).strip()
        self._words.clear()
        if words:
            inside = f"in <{self._path[-1]}>" if len(self._path) > 1 else "outside of all tags"
            raise self._error(f"text {where} {inside}: {_short(words)!r}; each text has a tag of its own")

    # Messages --------------------------------------------------------------------------------------------------------

    def _error(self, message: str) -> PromptError:
        return PromptError(f"line {self._parser.CurrentLineNumber}: {message}")

    def _explain(self, error: expat.ExpatError) -> str:
        reason = expat.errors.messages.get(error.code, "unreadable")
        tag = self._path[-1] if len(self._path) > 1 else ""
        hint = {
            expat.errors.XML_ERROR_INVALID_TOKEN: "; write `&amp;` for & and `&lt;` for <",
            expat.errors.XML_ERROR_UNDEFINED_ENTITY: "; only &amp; &lt; &gt; &quot; &apos; are known",
            expat.errors.XML_ERROR_TAG_MISMATCH: f"; <{tag}> is still open" if tag else "; no tag is open",
        }.get(reason, "")
        inside = f" in <{tag}>" if tag else ""
        return f"line {error.lineno}: not well-formed XML{inside}: {reason}{hint}"


def _nearest(tag: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(tag, known, 1)
    return f"; did you mean <{close[0]}>?" if close else f"; there are {', '.join(f'<{name}>' for name in known)}"


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _line_of(text: str, position: int) -> str:
    newlines = text.count("\n", 0, position)
    return f"line {newlines + 1}"
