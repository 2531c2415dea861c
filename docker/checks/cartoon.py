"""What the sample model draws: cartoon scenes and their attributes, as data.

A scene has one or two characters, one per side, and a background. The tables are the one source of names and colours
for the drawings that the model learnt from, for the prompts, and for the grader that reads pictures back. Colours of
one table, and colours that touch in a picture (hair on background, iris on eye white), are at least 60 apart in RGB, so
that a reading by nearest colour survives shading and the small errors of a generated picture.

Standard library only: prompts are drawn wherever checks run.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

Colour = tuple[int, int, int]

SIZE = 128
"""Width and height of a picture in pixels."""

HAIR_COLOURS: dict[str, Colour] = {
    "red": (206, 48, 48),
    "blonde": (250, 214, 92),
    "green": (104, 212, 146),
    "blue": (58, 108, 226),
    "purple": (146, 72, 198),
    "pink": (244, 118, 178),
    "black": (52, 46, 56),
    "silver": (218, 222, 232),
}
EYE_COLOURS: dict[str, Colour] = {
    "red": (224, 40, 52),
    "blue": (40, 112, 236),
    "green": (36, 172, 84),
    "purple": (156, 60, 212),
    "golden": (246, 178, 24),
}
CLOTHING_COLOURS: dict[str, Colour] = {
    "red": (214, 56, 60),
    "blue": (52, 96, 214),
    "green": (52, 160, 88),
    "yellow": (248, 206, 66),
    "white": (240, 240, 244),
    "black": (56, 54, 64),
}
BACKGROUNDS: dict[str, Colour] = {
    "sky": (118, 190, 242),
    "night": (62, 60, 136),
    "sunset": (246, 140, 66),
    "forest": (44, 104, 64),
    "room": (210, 180, 136),
}
"""Each background's colour along the top edge of the picture, where no character reaches."""

HAIR_STYLES = ("short", "long", "twintails", "buns")
EXPRESSIONS = ("smile", "sad", "surprised", "laughing")
POSITIONS = ("left", "right")

SKIN: Colour = (255, 222, 196)
CENTRES: dict[str, tuple[int, int]] = {"left": (33, 56), "right": (95, 56)}
"""Centre of a character's head (x, y) in pixels; drawings vary it by at most `JITTER`."""
JITTER = 2.0


@dataclass(frozen=True)
class Character:
    """One character: where it stands and what it looks like; every value is a key or member of a table above."""

    position: str
    hair_colour: str
    eye_colour: str
    clothing_colour: str
    hair_style: str
    expression: str


@dataclass(frozen=True)
class Scene:
    """One or two characters, ordered left to right, before a background."""

    characters: tuple[Character, ...]
    background: str

    def attributes(self) -> dict[str, str]:
        """Return everything that a picture of the scene shows, as the grader names it: `left.hair_colour: red`, ..."""
        found = {
            "positions": "+".join(character.position for character in self.characters),
            "background": self.background,
        }
        for character in self.characters:
            for name in CHARACTER_ATTRIBUTES:
                found[f"{character.position}.{name}"] = getattr(character, name)
        return found


CHARACTER_ATTRIBUTES = ("hair_colour", "eye_colour", "clothing_colour", "hair_style", "expression")


def held_out(scene: Scene) -> bool:
    """Say whether a scene is kept from training: one in ten, by a hash of its attributes, so all sides agree."""
    text = ";".join(f"{name}={value}" for name, value in sorted(scene.attributes().items()))
    return hashlib.sha256(text.encode()).digest()[0] % 10 == 0


def random_character(rng: random.Random, position: str) -> Character:
    """Draw every attribute of a character independently and evenly."""
    return Character(
        position=position,
        hair_colour=rng.choice(list(HAIR_COLOURS)),
        eye_colour=rng.choice(list(EYE_COLOURS)),
        clothing_colour=rng.choice(list(CLOTHING_COLOURS)),
        hair_style=rng.choice(HAIR_STYLES),
        expression=rng.choice(EXPRESSIONS),
    )


def random_scene(rng: random.Random, *, for_training: bool, characters: int = 0) -> Scene:
    """Draw a scene of the training split or of the held-out one.

    characters: 1 or 2; 0 draws one of them, two characters in three cases of five.
    """
    while True:
        count = characters or (2 if rng.random() < 0.6 else 1)
        positions = POSITIONS if count == 2 else (rng.choice(POSITIONS),)
        scene = Scene(
            characters=tuple(random_character(rng, position) for position in positions),
            background=rng.choice(list(BACKGROUNDS)),
        )
        if held_out(scene) != for_training:
            return scene
