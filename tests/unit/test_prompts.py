"""Prompts: what is XML, what it may hold, and what the message says when it may not. No torch."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys

import pytest
from checks_package import family
from hypothesis import given
from hypothesis import strategies as st
from runtime_package import FOLDER, runtime

prompts = runtime("prompts")
PromptError = runtime("errors").PromptError

GOOD = """<character_1>
<n>$character_1$</n>
<gender>1girl</gender>
<appearance>blue_hair, long_hair, golden_eyes</appearance>
<clothing>white_shirt</clothing>
<expression>smile</expression>
<action>standing</action>
<position>center_left</position>
</character_1>
<character_2>
<appearance>red hair &amp; freckles</appearance>
</character_2>
<general_tags>
<count>2girls</count>
<style>anime_style</style>
<background>forest, trees</background>
<atmosphere>calm</atmosphere>
<quality>detailed</quality>
<objects></objects>
<other>a &lt;3 sign</other>
</general_tags>
"""


def test_reads_every_known_tag_and_keeps_the_text_as_it_stands():
    prompt = prompts.parse(GOOD)
    assert prompt.is_xml
    assert prompt.text == GOOD.strip()
    assert prompt.characters[0]["appearance"] == "blue_hair, long_hair, golden_eyes"
    assert prompt.characters[1] == {"appearance": "red hair & freckles"}
    assert prompt.general is not None
    assert prompt.general["other"] == "a <3 sign"
    assert prompt.general["objects"] == ""
    assert set(prompt.characters[0]) == set(prompts.CHARACTER_FIELDS)
    assert set(prompt.general) == set(prompts.GENERAL_FIELDS)


def test_characters_are_ordered_by_their_number():
    prompt = prompts.parse("<character_2><n>b</n></character_2><character_1><n>a</n></character_1>")
    assert [character["n"] for character in prompt.characters] == ["a", "b"]


@pytest.mark.parametrize("text", ["a girl with blue hair", "x < y, and 3 > 2", "naïve 日本 👍", "  two\nlines  "])
def test_anything_else_is_plain_text(text):
    prompt = prompts.parse(text)
    assert not prompt.is_xml
    assert prompt.text == text.strip()


# text -> what its message has to say
WRONG = {
    "<character_1>\n<hair>red</hair>\n</character_1>": "line 2: unknown tag <hair> in <character_1>",
    "<character_1>\n<apearance>x</apearance>\n</character_1>": "did you mean <appearance>?",
    "<general_tags>\n\n<clothing>x</clothing></general_tags>": "line 3: unknown tag <clothing> in <general_tags>",
    "<charakter_1><n>x</n></charakter_1>": "line 1: unknown tag <charakter_1>; did you mean <character_1>?",
    "<character_x><n>x</n></character_x>": "unknown tag <character_x>",
    "<character_0><n>x</n></character_0>": "unknown tag <character_0>",
    "<character_9><n>x</n></character_9>": "<character_9>: at most 8 characters",
    "<character_2><n>x</n></character_2>": "<character_1> is missing",
    "<appearance>red_hair</appearance>": "<appearance> belongs inside <character_N>",
    "<background>sky</background>": "<background> belongs inside <general_tags>",
    "<character_1>\n<n>a</n>\n<n>b</n>\n</character_1>": "line 3: <n> is there twice in <character_1>",
    "<character_1><n>a</n></character_1>\n<character_1></character_1>": "line 2: <character_1> is there twice",
    "<character_1><n>a<gender>b</gender></n></character_1>": "<gender> stands inside <n>",
    "<character_1>\nred hair\n</character_1>": "text before </character_1> in <character_1>: 'red hair'",
    "a girl <general_tags><count>1</count></general_tags>": "text before <general_tags> outside of all tags: 'a girl'",
    "<character_1><n>a</n></character_1>\nand a cat": "outside of all tags: 'and a cat'",
    '<character_1 id="1"><n>a</n></character_1>': "<character_1> has an attribute, 'id'",
    "<character_1>\n<n>a": "line 2: <n> is never closed",
    "<character_1>\n<n>a</gender>\n</character_1>": "line 2: not well-formed XML in <n>: mismatched tag; <n> is still",
    "<character_1><n>salt & pepper</n></character_1>": "write `&amp;` for &",
    "<character_1><n>&nbsp;</n></character_1>": "undefined entity; only &amp;",
    "<": "line 1: not well-formed XML",
    "</general_tags>": "mismatched tag",
    "</prompt>": "closes nothing",
    "</prompt><prompt>": "junk after document element",
    "<prompt><character_1></character_1></prompt>": "unknown tag <prompt>",
    "<?xml version='1.0'?><character_1></character_1>": "line 1",
    "<?php x?><character_1></character_1>": "<?...?> has no place",
    "<!-- x --><character_1></character_1>": "<!-- --> has no place",
    "<character_1><n><![CDATA[x]]></n></character_1>": "<![CDATA[]]> has no place",
    "": "the prompt is empty",
    " \n\t": "the prompt is empty",
    "a\nb\x00c": "line 2: the prompt holds the control character U+0000",
    "\ud800": "not valid Unicode",
}


@pytest.mark.parametrize("text", WRONG)
def test_the_message_names_the_fault(text):
    with pytest.raises(PromptError) as caught:
        prompts.parse(text)
    assert WRONG[text] in str(caught.value)


BOMB = "<!DOCTYPE x [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(12)
)
ATTACKS = {
    "a billion laughs": f"{BOMB}]><character_1><n>&m;</n></character_1>",
    "a file of the machine": "<!DOCTYPE x [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><character_1><n>&f;</n></character_1>",
    "a DTD from elsewhere": "<!DOCTYPE x SYSTEM 'http://127.0.0.1:9/x.dtd'><character_1></character_1>",
    "a declaration inside": "<character_1><!DOCTYPE x></character_1>",
    "depth": "<character_1>" * 1000,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_declaration_is_ever_followed(name):
    with pytest.raises(PromptError, match=r"line 1: "):
        prompts.parse(ATTACKS[name])


def test_size_is_limited_in_bytes_before_anything_is_parsed():
    assert prompts.parse("x" * prompts.MAX_BYTES)
    with pytest.raises(PromptError, match=r"16,385 bytes long; at most 16,384"):
        prompts.parse("x" * (prompts.MAX_BYTES + 1))
    with pytest.raises(PromptError, match="bytes long"):
        prompts.parse("é" * (prompts.MAX_BYTES // 2 + 1))


def test_every_prompt_that_the_checks_write_is_read():
    """What certifies an image has to be a prompt that a user could have written."""
    cartoon, words = family("cartoon"), family("cartoon_prompts")
    rng = random.Random(3)  # noqa: S311 - prompts, no secrets
    for _ in range(300):
        scene = cartoon.random_scene(rng, for_training=False)
        prompt = prompts.parse(words.xml_prompt(scene, rng))
        assert len(prompt.characters) == len(scene.characters)
        assert all("appearance" in character for character in prompt.characters)
        assert not prompts.parse(words.plain_prompt(scene, rng)).is_xml


@given(st.text(alphabet=st.sampled_from("<>/&;!?[]ab_1 \n\"'") | st.characters(), max_size=80))
def test_any_text_is_read_or_refused_with_a_prompt_error(text):
    for candidate in (
        text,
        f"<character_1>{text}</character_1>",
        f"<general_tags><other>{text}</other></general_tags>",
    ):
        with contextlib.suppress(PromptError):
            assert prompts.parse(candidate).text == candidate.strip()


def test_needs_no_torch():
    code = "import sys; import newbie.prompts; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER).returncode == 0
