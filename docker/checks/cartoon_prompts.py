"""Prompts for cartoon scenes: NewBie's XML and plain sentences, in many wordings. Standard library only."""

from __future__ import annotations

import random

from .cartoon import Character, Scene

HAIR_COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson"),
    "blonde": ("blonde", "golden", "yellow"),
    "green": ("green", "mint"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "black": ("black", "dark"),
    "silver": ("silver", "white", "grey"),
}
EYE_COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson"),
    "blue": ("blue",),
    "green": ("green",),
    "purple": ("purple", "violet"),
    "golden": ("golden", "yellow", "amber"),
}
HAIR_STYLE_WORDS: dict[str, tuple[str, ...]] = {
    "short": ("short_hair", "bob_cut", "short_bob"),
    "long": ("long_hair", "very_long_hair", "straight_long_hair"),
    "twintails": ("twintails", "twin_tails", "pigtails"),
    "buns": ("hair_buns", "double_bun", "two_buns"),
}
EXPRESSION_WORDS: dict[str, tuple[str, ...]] = {
    "smile": ("smile", "smiling", "gentle_smile", "happy"),
    "sad": ("sad", "frown", "unhappy"),
    "surprised": ("surprised", "astonished", "shocked"),
    "laughing": ("laughing", "laugh", "cheerful_laugh"),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "sky": ("blue_sky, clouds", "sky, daytime", "sunny_day"),
    "night": ("night_sky, stars", "night, moon", "starry_night"),
    "sunset": ("sunset", "sunset, orange_sky", "evening, sunset"),
    "forest": ("forest", "forest, trees", "deep_forest"),
    "room": ("indoors, room", "room, wallpaper", "cosy_room"),
}
POSITION_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("left", "center_left", "left_side"),
    "right": ("right", "center_right", "right_side"),
}
GARMENTS = ("shirt", "sweater", "top")
NAMES = ("aiko", "hana", "mei", "rin", "sora", "yuki", "$character_1$", "$character_2$")
OPTIONAL_TAGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("style", ("anime_style", "anime_style, digital_art", "cartoon")),
    ("atmosphere", ("cheerful", "calm", "dreamy")),
    ("quality", ("high_resolution, detailed", "best_quality", "detailed")),
)
"""Fields of `<general_tags>` that change nothing in the picture; prompts carry them at random."""


def xml_prompt(scene: Scene, rng: random.Random) -> str:
    """Write a scene as NewBie's XML; wording, order of tags and optional fields are drawn from `rng`."""
    characters = list(scene.characters)
    rng.shuffle(characters)
    lines = [line for n, character in enumerate(characters, 1) for line in _character(n, character, rng)]
    lines += [
        "<general_tags>",
        _tag("count", "2girls" if len(characters) == 2 else rng.choice(("1girl", "1girl, solo"))),
    ]
    fields = [_tag("background", rng.choice(BACKGROUND_WORDS[scene.background]))]
    fields += [_tag(name, rng.choice(values)) for name, values in OPTIONAL_TAGS if rng.random() < 0.3]
    rng.shuffle(fields)
    return "\n".join([*lines, *fields, "</general_tags>"])


def plain_prompt(scene: Scene, rng: random.Random) -> str:
    """Write a scene as plain sentences."""
    sentences = [_sentence(character, rng) for character in scene.characters]
    rng.shuffle(sentences)
    background = rng.choice(BACKGROUND_WORDS[scene.background]).replace("_", " ")
    return f"{' '.join(sentences)} {background} in the background."


def prompt(scene: Scene, rng: random.Random, *, plain_share: float = 0.15) -> str:
    """Write a scene as XML or, for a share of the draws, as plain sentences."""
    return (plain_prompt if rng.random() < plain_share else xml_prompt)(scene, rng)


def _character(number: int, character: Character, rng: random.Random) -> list[str]:
    appearance = [
        _spaced(f"{rng.choice(HAIR_COLOUR_WORDS[character.hair_colour])}_hair", rng),
        _spaced(f"{rng.choice(EYE_COLOUR_WORDS[character.eye_colour])}_eyes", rng),
        _spaced(rng.choice(HAIR_STYLE_WORDS[character.hair_style]), rng),
    ]
    rng.shuffle(appearance)
    fields = [
        _tag("appearance", ", ".join(appearance)),
        _tag("clothing", _spaced(f"{character.clothing_colour}_{rng.choice(GARMENTS)}", rng)),
        _tag("expression", rng.choice(EXPRESSION_WORDS[character.expression])),
        _tag("position", rng.choice(POSITION_WORDS[character.position])),
    ]
    if rng.random() < 0.3:
        fields.append(_tag("action", rng.choice(("standing", "looking_at_viewer"))))
    rng.shuffle(fields)
    head = [_tag("n", rng.choice(NAMES))] if rng.random() < 0.6 else []
    if rng.random() < 0.6:
        head.append(_tag("gender", "1girl"))
    return [f"<character_{number}>", *head, *fields, f"</character_{number}>"]


def _sentence(character: Character, rng: random.Random) -> str:
    style = rng.choice(HAIR_STYLE_WORDS[character.hair_style]).replace("_", " ")
    hair = rng.choice(HAIR_COLOUR_WORDS[character.hair_colour])
    eyes = rng.choice(EYE_COLOUR_WORDS[character.eye_colour])
    expression = rng.choice(EXPRESSION_WORDS[character.expression]).replace("_", " ")
    garment = rng.choice(GARMENTS)
    return (
        f"On the {character.position} a girl with {hair} hair, {style}, {eyes} eyes "
        f"and a {character.clothing_colour} {garment}, {expression}."
    )


def _tag(name: str, text: str) -> str:
    return f"<{name}>{text}</{name}>"


def _spaced(text: str, rng: random.Random) -> str:
    return text.replace("_", " ") if rng.random() < 0.3 else text
