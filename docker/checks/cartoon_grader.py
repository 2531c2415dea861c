"""Read the attributes of a cartoon scene back from its pixels: regions and colours, no model, numpy only.

A head is found by its skin; every other region is measured from the middle of that face, so a character may stand a few
pixels off. A colour is the median of its region, named by the nearest colour of the table. The regions are the places
where a drawing shows the attribute in its plain colour: they follow `cartoon.CENTRES` and the outlines of the drawings,
and `tests/unit/test_grader.py` holds them to reading every drawn picture without a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import cartoon

UNREADABLE = "unreadable"
"""Value of an attribute whose region shows none of the table's values."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, from the centre of the head."""

# Where to look, from the centre of the head.
CROWN: Box = (-13, -21, 13, -12)
IRIS: tuple[Box, Box] = ((-12.5, 4, -4.5, 9), (4.5, 4, 12.5, 9))
CHEST: Box = (-9, 38, 9, 62)
MOUTH: Box = (-6.5, 10.6, 6.5, 18.6)
STYLE_REGIONS: tuple[tuple[str, tuple[Box, Box]], ...] = (
    ("buns", ((-18, -27, -12, -22), (12, -27, 18, -22))),
    ("twintails", ((-29, 3, -25, 14), (25, 3, 29, 14))),
    ("long", ((-24.5, 28, -21, 46), (21, 28, 24.5, 46))),
)
"""Hair styles by where hair shows on both sides, in this order; hair in none of these places is short."""

SKIN_DISTANCE = 42.0
"""Skin differs from the nearest colour of any background by more than 50."""
FACE_PIXELS = 150
"""A face has 380 to 600 skin pixels outside its eyes; a hand-sized patch is no face."""
FACE_TO_HEAD = 6.9
"""The middle of the visible skin lies this many pixels below the centre of the head."""
HAIR_DISTANCE = 48.0
STYLE_SHARE = 0.35
"""Drawn hair fills at least half of its style's regions and, where the style differs, never more than a twentieth."""
LIPS_RED_OVER_GREEN, LIPS_GREEN = 60, 150
"""Lips have more red than green by the first, and less green than the second; skin and outlines fail one of them."""


@dataclass(frozen=True)
class Grade:
    """What a picture shows against what its prompt asked for, attribute by attribute."""

    wanted: dict[str, str]
    read: dict[str, str]

    @property
    def wrong(self) -> list[str]:
        """Names of the attributes that the picture does not show as asked."""
        return [name for name, value in self.wanted.items() if self.read.get(name) != value]

    @property
    def right(self) -> int:
        """Number of attributes shown as asked."""
        return len(self.wanted) - len(self.wrong)


def grade(picture: Any, scene: cartoon.Scene) -> Grade:
    """Compare a picture with a scene. picture: (128, 128, 3) uint8. Raises ValueError for any other shape or type."""
    return Grade(scene.attributes(), read(picture))


def read(picture: Any) -> dict[str, str]:
    """Return all attributes that a picture shows, named as `Scene.attributes` names them."""
    pixels = np.asarray(picture)
    if pixels.shape != (cartoon.SIZE, cartoon.SIZE, 3) or pixels.dtype != np.uint8:
        raise ValueError(
            f"the grader reads ({cartoon.SIZE}, {cartoon.SIZE}, 3) uint8 pictures, not {pixels.shape} {pixels.dtype}"
        )
    pixels = pixels.astype(np.float32)
    found = {"background": _nearest(np.median(pixels[1:6].reshape(-1, 3), axis=0), cartoon.BACKGROUNDS)}
    present = []
    for position in cartoon.POSITIONS:
        head = _find_head(pixels, position)
        if head is not None:
            present.append(position)
            for name, value in _read_character(pixels, head).items():
                found[f"{position}.{name}"] = value
    found["positions"] = "+".join(present)
    return found


def _read_character(pixels: Any, head: tuple[float, float]) -> dict[str, str]:
    hair = np.median(_region(pixels, head, CROWN), axis=0)
    return {
        "hair_colour": _nearest(hair, cartoon.HAIR_COLOURS),
        "eye_colour": _eye_colour(pixels, head),
        "clothing_colour": _nearest(np.median(_region(pixels, head, CHEST), axis=0), cartoon.CLOTHING_COLOURS),
        "hair_style": _hair_style(pixels, head, hair),
        "expression": _expression(pixels, head),
    }


def _find_head(pixels: Any, position: str) -> tuple[float, float] | None:
    x, y = cartoon.CENTRES[position]
    left, top = x - 22, y - 12
    window = pixels[top : y + 24, left : x + 23]
    skin = _distance(window, cartoon.SKIN) < SKIN_DISTANCE
    if int(skin.sum()) < FACE_PIXELS:
        return None
    rows, columns = np.nonzero(skin)
    return left + float(columns.mean()), top + float(rows.mean()) - FACE_TO_HEAD


def _eye_colour(pixels: Any, head: tuple[float, float]) -> str:
    """Name the iris colour that most pixels below the pupils are nearest to; outline, white and skin have no vote."""
    names = list(cartoon.EYE_COLOURS)
    others = [cartoon.SKIN, (252, 252, 255), (64, 44, 58), (150, 150, 160)]
    palette = np.asarray([cartoon.EYE_COLOURS[name] for name in names] + others, np.float32)
    votes = np.zeros(len(names))
    for box in IRIS:
        region = _region(pixels, head, box)
        nearest = np.linalg.norm(region[:, None, :] - palette[None], axis=2).argmin(axis=1)
        votes += np.bincount(nearest, minlength=len(palette))[: len(names)]
    return names[int(votes.argmax())] if votes.max() >= 8 else UNREADABLE


def _hair_style(pixels: Any, head: tuple[float, float], hair: Any) -> str:
    for style, boxes in STYLE_REGIONS:
        if all(
            float((_distance(_region(pixels, head, box), hair) < HAIR_DISTANCE).mean()) > STYLE_SHARE for box in boxes
        ):
            return style
    return "short"


def _expression(pixels: Any, head: tuple[float, float]) -> str:
    """Tell mouths apart: a wide filled one laughs, a tall narrow one is surprised, and a line's ends go up or down."""
    left, top, right, bottom = MOUTH
    x0, y0 = round(head[0] + left), round(head[1] + top)
    block = pixels[y0 : round(head[1] + bottom) + 1, x0 : round(head[0] + right) + 1]
    red, green = block[:, :, 0], block[:, :, 1]
    mouth = (red - green > LIPS_RED_OVER_GREEN) & (green < LIPS_GREEN)
    rows, columns = np.nonzero(mouth)
    if len(rows) < 5:
        return UNREADABLE
    near = np.abs(rows - np.median(rows)) <= 5  # a red collar or chin line may reach into the box
    rows, columns = rows[near], columns[near]
    width = int(columns.max() - columns.min()) + 1
    if len(rows) >= 36 and width >= 9:
        return "laughing"
    if width <= 8:
        return "surprised" if int(rows.max() - rows.min()) + 1 >= 5 else UNREADABLE
    offset = np.abs(columns - (columns.max() + columns.min()) / 2)
    middle, ends = rows[offset <= width * 0.2], rows[offset >= width * 0.36]
    if not len(middle) or not len(ends):
        return UNREADABLE
    return "smile" if float(ends.mean()) < float(middle.mean()) else "sad"


def _region(pixels: Any, head: tuple[float, float], box: Box) -> Any:
    """Return the pixels of a box, (n, 3), cut at the picture's edges."""
    left, top, right, bottom = box
    rows = slice(max(0, round(head[1] + top)), max(1, round(head[1] + bottom)))
    columns = slice(max(0, round(head[0] + left)), max(1, round(head[0] + right)))
    region = pixels[rows, columns].reshape(-1, 3)
    return region if len(region) else np.zeros((1, 3), np.float32)


def _distance(pixels: Any, colour: Any) -> Any:
    return np.linalg.norm(pixels - np.asarray(colour, np.float32), axis=-1)


def _nearest(colour: Any, table: Mapping[str, cartoon.Colour]) -> str:
    names = list(table)
    return names[int(np.argmin([float(_distance(colour, table[name])) for name in names]))]
