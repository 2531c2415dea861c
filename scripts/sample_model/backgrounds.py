"""Backgrounds of cartoon scenes, drawn at four times the final size."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from assay_checks import cartoon
from PIL import Image, ImageDraw

SCALE = 4
"""Pictures are drawn this many times larger and averaged down, which smooths every edge."""

_SIDE = cartoon.SIZE * SCALE
_RAMP = np.linspace(0.0, 1.0, _SIDE, dtype=np.float32)[:, None, None]
Colour = tuple[int, int, int]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour `share` of the way from first to second."""
    return (
        round(first[0] + (second[0] - first[0]) * share),
        round(first[1] + (second[1] - first[1]) * share),
        round(first[2] + (second[2] - first[2]) * share),
    )


def draw(name: str, rng: random.Random) -> Image.Image:
    """Return a background of `cartoon.BACKGROUNDS`; the top edge keeps the table's colour."""
    return _PAINTERS[name](cartoon.BACKGROUNDS[name], rng)


def _gradient(top: Colour, bottom: Colour) -> Image.Image:
    rows = np.asarray(top, np.float32) * (1 - _RAMP) + np.asarray(bottom, np.float32) * _RAMP
    return Image.fromarray(np.broadcast_to(rows, (_SIDE, _SIDE, 3)).astype(np.uint8))


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    x, y, radius = x * SCALE, y * SCALE, radius * SCALE
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _hills(pen: ImageDraw.ImageDraw, top: float, height: float, phase: float, colour: Colour) -> None:
    line = [(x * SCALE, (top + height * math.sin(phase + x * 0.055)) * SCALE) for x in range(-2, cartoon.SIZE + 3, 3)]
    pen.polygon([(0, _SIDE), *line, (_SIDE, _SIDE)], fill=colour)


def _sky(colour: Colour, rng: random.Random) -> Image.Image:
    image = _gradient(colour, (168, 216, 246))
    pen = ImageDraw.Draw(image)
    for x, y in ((rng.uniform(4, 24), 17), (rng.uniform(60, 68), 32), (rng.uniform(100, 124), 16)):
        for dx, dy, radius in ((-7, 1, 4.5), (0, -2, 6.5), (7, 1, 5)):
            _disc(pen, x + dx, y + dy, radius, (246, 251, 255))
    _hills(pen, 112, 4, rng.uniform(0, 6), (150, 192, 92))
    return image


def _night(colour: Colour, rng: random.Random) -> Image.Image:
    image = _gradient(colour, (84, 84, 160))
    pen = ImageDraw.Draw(image)
    moon = rng.uniform(58, 70)
    _disc(pen, moon, 22, 7, (250, 240, 200))
    _disc(pen, moon + 3.2, 20, 6, mix(colour, (84, 84, 160), 0.16))
    for _ in range(16):
        _disc(pen, rng.uniform(2, 126), rng.uniform(3, 70), rng.uniform(0.5, 1.0), (244, 240, 216))
    _hills(pen, 108, 5, rng.uniform(0, 6), (44, 44, 92))
    return image


def _sunset(colour: Colour, rng: random.Random) -> Image.Image:
    image = _gradient(colour, (244, 150, 122))
    pen = ImageDraw.Draw(image)
    _disc(pen, rng.uniform(62, 66), 86, 9, (255, 236, 170))
    _hills(pen, 102, 4, rng.uniform(0, 6), (168, 84, 96))
    _hills(pen, 114, 3, rng.uniform(0, 6), (122, 62, 92))
    return image


def _forest(colour: Colour, rng: random.Random) -> Image.Image:
    image = _gradient(colour, (104, 160, 92))
    pen = ImageDraw.Draw(image)
    for x in (rng.uniform(-2, 8), rng.uniform(58, 70), rng.uniform(120, 130)):
        pen.rectangle(((x - 3) * SCALE, 40 * SCALE, (x + 3) * SCALE, _SIDE), fill=(98, 72, 54))
        for dx, dy, radius in ((-7, 2, 8), (7, 2, 8), (0, -6, 9)):
            _disc(pen, x + dx, 40 + dy, radius, (66, 134, 74))
    _hills(pen, 112, 3, rng.uniform(0, 6), (122, 178, 88))
    return image


def _room(colour: Colour, rng: random.Random) -> Image.Image:
    image = _gradient(colour, mix(colour, (238, 214, 180), 0.5))
    pen = ImageDraw.Draw(image)
    stripe = mix(colour, (232, 208, 170), 0.6)
    for x in range(rng.randrange(-8, 0), cartoon.SIZE, 16):
        pen.rectangle((x * SCALE, 0, (x + 4) * SCALE, _SIDE), fill=stripe)
    left = rng.uniform(53, 57)
    pen.rectangle((left * SCALE, 24 * SCALE, (left + 18) * SCALE, 52 * SCALE), fill=(134, 96, 70))
    pen.rectangle(((left + 2) * SCALE, 26 * SCALE, (left + 16) * SCALE, 50 * SCALE), fill=(112, 176, 226))
    pen.rectangle((0, 112 * SCALE, _SIDE, _SIDE), fill=(150, 108, 78))
    return image


_PAINTERS: dict[str, Callable[[Colour, random.Random], Image.Image]] = {
    "sky": _sky,
    "night": _night,
    "sunset": _sunset,
    "forest": _forest,
    "room": _room,
}
