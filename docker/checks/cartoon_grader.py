"""Read the attributes of a cartoon scene back from its pixels: regions and colours, no model, numpy only.

A head is found by its skin; every other region is measured from the middle of that face, so a character may stand a few
pixels off. A colour is the median of its region, named by the nearest colour of the table. The regions are the places
where a drawing shows the attribute in its plain colour: they follow `cartoon.CENTRES` and the outlines of the drawings,
and `tests/runtime/test_grader.py` holds them to reading every drawn picture without a fault.
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
SKIN_RED_OVER_GREEN, LIPS_RED_OVER_GREEN = 60.0, 70.0
"""A pixel counts as lips from the first excess of red over green on, and fully at the first plus the second: skin has
an excess of about 30, lips of 142, and outlines none."""
LIPS_LEAST, OPEN_MIDDLE, OPEN_ENDS, CLOSED_LIFT = 0.6, 3.0, 0.05, 0.8
"""Limits on `_mouth_shape`. Over 1,266 drawn mouths, sharp or blurred by 0.8 pixels: closed ones are 1.2 to 2.1 pixels
tall in the middle with ends 2.0 to 3.3 pixels higher (smile) or lower (sad); open ones are 4.0 to 6.5 tall, with no
ends (surprised) or with ends of a tenth of the middle or more (laughing)."""


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
    """Tell mouths apart: open ones by their width, closed ones by whether the ends lie above the middle or below."""
    middle, ends, lift = _mouth_shape(pixels, head)
    if middle < LIPS_LEAST:
        return UNREADABLE
    if middle >= OPEN_MIDDLE:
        return "surprised" if ends < OPEN_ENDS * middle else "laughing"
    if abs(lift) < CLOSED_LIFT:
        return UNREADABLE
    return "smile" if lift > 0 else "sad"


def _mouth_shape(pixels: Any, head: tuple[float, float]) -> tuple[float, float, float]:
    """Return how tall the lips are in the middle and at the ends of the mouth, and how far the ends lie above it.

    All in pixels. Every pixel counts by how red it is, so that an edge that is blurred moves the figures little.
    """
    left, top, right, bottom = MOUTH
    x0, y0 = round(head[0] + left), round(head[1] + top)
    block = pixels[y0 : round(head[1] + bottom) + 1, x0 : round(head[0] + right) + 1]
    red = np.clip((block[:, :, 0] - block[:, :, 1] - SKIN_RED_OVER_GREEN) / LIPS_RED_OVER_GREEN, 0, 1)
    columns = np.abs(np.arange(red.shape[1]) + x0 - head[0])
    rows = np.arange(red.shape[0])[:, None]

    def column_group(low: float, high: float) -> tuple[float, float]:
        part = red[:, (columns >= low) & (columns <= high)]
        weight = float(part.sum())
        return weight / max(1, part.shape[1]), float((part * rows).sum()) / max(weight, 1e-6)

    middle, middle_row = column_group(0, 1.6)
    ends, ends_row = column_group(3.9, 5.6)
    return middle, ends, middle_row - ends_row


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
