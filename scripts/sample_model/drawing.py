"""Draw a cartoon scene: the pictures that the sample model learns from."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from assay_checks import cartoon
from PIL import Image, ImageDraw

from . import backgrounds
from .backgrounds import SCALE, Colour, mix

_LINE: Colour = (64, 44, 58)
_WHITE: Colour = (255, 255, 255)
_BLUSH: Colour = (250, 178, 164)
_MOUTH: Colour = (186, 44, 62)
_BROWS = {"smile": (-6.4, -6.0), "sad": (-7.6, -4.8), "surprised": (-8.4, -8.0), "laughing": (-7.2, -6.6)}
"""Height of a brow's inner and outer end, from the centre of the head."""
Point = tuple[float, float]


def draw(scene: cartoon.Scene, rng: random.Random) -> npt.NDArray[np.uint8]:
    """Return the picture of a scene, (128, 128, 3) uint8.

    `rng` moves each character by at most `cartoon.JITTER` pixels, scales it by at most 4 %, tilts its bangs, and places
    clouds, stars and trees; nothing that an attribute names depends on it.
    """
    image = backgrounds.draw(scene.background, rng)
    pen = ImageDraw.Draw(image)
    for character in scene.characters:
        _Figure(pen, character, rng).draw()
    return np.asarray(image.reduce(SCALE))


class _Figure:
    """One character. Coordinates are pixels of the final picture, from the centre of the head."""

    def __init__(self, pen: ImageDraw.ImageDraw, character: cartoon.Character, rng: random.Random) -> None:
        x, y = cartoon.CENTRES[character.position]
        self.pen = pen
        self.character = character
        self.rng = rng
        self.x = x + rng.uniform(-cartoon.JITTER, cartoon.JITTER)
        self.y = y + rng.uniform(-cartoon.JITTER, cartoon.JITTER)
        self.size = rng.uniform(0.96, 1.04)
        self.hair = cartoon.HAIR_COLOURS[character.hair_colour]
        self.hair_shade = mix(self.hair, _LINE, 0.28)
        self.hair_light = mix(self.hair, _WHITE, 0.35)
        self.hair_line = mix(self.hair, _LINE, 0.72)
        self.cloth = cartoon.CLOTHING_COLOURS[character.clothing_colour]
        self.cloth_shade = mix(self.cloth, _LINE, 0.25)
        self.eye = cartoon.EYE_COLOURS[character.eye_colour]

    def draw(self) -> None:
        self._back_hair()
        self._body()
        self._head()
        for side in (-1, 1):
            self._eye(side)
        self._mouth()
        self._bangs()
        for side in (-1, 1):
            self._brow(side)
        self._ornaments()

    # Primitives ------------------------------------------------------------------------------------------------------

    def _at(self, x: float, y: float) -> Point:
        return ((self.x + x * self.size) * SCALE, (self.y + y * self.size) * SCALE)

    def _ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour, line: Colour | None = None) -> None:
        if line is not None:
            self._ellipse(x, y, rx + 0.7, ry + 0.7, line)
        left, top = self._at(x - rx, y - ry)
        right, bottom = self._at(x + rx, y + ry)
        self.pen.ellipse((left, top, right, bottom), fill=fill)

    def _shape(self, points: Sequence[Point], fill: Colour, line: Colour | None = None) -> None:
        corners = [self._at(x, y) for x, y in points]
        self.pen.polygon(corners, fill=fill)
        if line is not None:
            self.pen.line([*corners, corners[0], corners[1]], fill=line, width=round(0.9 * SCALE), joint="curve")

    def _stroke(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        corners = [self._at(x, y) for x, y in points]
        self.pen.line(corners, fill=colour, width=round(width * SCALE), joint="curve")
        radius = width * SCALE / 2
        for x, y in (corners[0], corners[-1]):
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    # Parts, back to front --------------------------------------------------------------------------------------------

    def _back_hair(self) -> None:
        style = self.character.hair_style
        if style == "twintails":
            for side in (-1, 1):
                tail = curve((side * 18, -13), (side * 34, -15), (side * 31.5, 22), (side * 24, 42))
                back = curve((side * 24, 42), (side * 19.5, 26), (side * 22, 6), (side * 17, -2))
                self._shape([*tail, *back], self.hair, self.hair_line)
        if style == "buns":
            for side in (-1, 1):
                self._ellipse(side * 14, -23, 7.5, 7.5, self.hair, self.hair_line)
                self._ellipse(side * 14, -21, 4, 3.4, self.hair_shade)
                self._ellipse(side * 14, -22.6, 4, 3.4, self.hair)
        if style == "long":
            fall = [*curve((-23, -4), (-26, 18), (-25, 40), (-26, 57)), (-12, 58), (12, 58)]
            self._shape([*fall, *curve((26, 57), (25, 40), (26, 18), (23, -4))], self.hair, self.hair_line)
            for side in (-1, 1):
                self._stroke(
                    curve((side * 19.5, 20), (side * 19.8, 30), (side * 20, 40), (side * 21, 54)),
                    self.hair_shade,
                    1.0,
                )
        self._ellipse(0, -1, 22.5, 23, self.hair_shade, self.hair_line)
        if style == "short":
            ends = [(-21, 12), (-17, 20), (-8, 21), (8, 21), (17, 20), (21, 12)]
            self._shape([(-22, -2), *ends, (22, -2)], self.hair_shade, self.hair_line)

    def _body(self) -> None:
        self._shape([(-4.5, 14), (-4.5, 26), (4.5, 26), (4.5, 14)], mix(cartoon.SKIN, _LINE, 0.16))
        left = curve((-6, 23), (-15, 24), (-17.5, 30), (-20, 82))
        right = curve((20, 82), (17.5, 30), (15, 24), (6, 23))
        self._shape([*left, *right], self.cloth, _LINE)
        for side in (-1, 1):
            self._stroke([(side * 12, 40), (side * 12.5, 82)], self.cloth_shade, 1.3)
        collar = mix(self.cloth, _WHITE, 0.75) if self.character.clothing_colour != "white" else (150, 170, 214)
        for side in (-1, 1):
            self._shape([(0, 31), (side * 8, 30), (side * 7, 23), (side * 4, 22)], collar, _LINE)

    def _head(self) -> None:
        jaw = curve((-19, 0), (-18.5, 15), (-8, 21.5), (0, 22))
        self._shape(
            [*curve((19, 0), (19, -20), (-19, -20), (-19, 0)), *jaw, *curve((0, 22), (8, 21.5), (18.5, 15), (19, 0))],
            cartoon.SKIN,
            _LINE,
        )
        for side in (-1, 1):
            self._ellipse(side * 12.5, 11.5, 3.2, 1.8, _BLUSH)

    def _eye(self, side: int) -> None:
        x = side * 8.5
        self._ellipse(x, 3, 4.9, 6.2, (252, 252, 255), _LINE)
        self._ellipse(x, 3.4, 4.3, 5.8, mix(self.eye, _LINE, 0.35))
        self._ellipse(x, 4.0, 3.9, 5.2, self.eye)
        self._ellipse(x, 3.2, 1.7, 2.6, mix(self.eye, (20, 14, 30), 0.85))
        self._ellipse(x - 1.5, 0.6, 1.5, 1.6, _WHITE)
        self._stroke(curve((x - 5.2, 0.4), (x - 3, -4), (x + 3, -4), (x + 5.2, 0.4)), _LINE, 1.5)

    def _brow(self, side: int) -> None:
        inner, outer = _BROWS[self.character.expression]
        colour = mix(self.hair_line, _LINE, 0.4)
        self._stroke([(side * 5.0, inner), (side * 8.5, (inner + outer) / 2 - 0.6), (side * 12.0, outer)], colour, 1.1)

    def _mouth(self) -> None:
        expression = self.character.expression
        if expression == "smile":
            self._stroke(curve((-6, 11.8), (-3.6, 18), (3.6, 18), (6, 11.8)), _MOUTH, 2.0)
        elif expression == "sad":
            self._stroke(curve((-6, 17.4), (-3.6, 11.2), (3.6, 11.2), (6, 17.4)), _MOUTH, 2.0)
        elif expression == "surprised":
            self._ellipse(0, 14.4, 2.3, 3.3, _MOUTH, _LINE)
        else:
            lips = [(-6.2, 11.0), (6.2, 11.0), *curve((6.2, 11.0), (5.4, 20.4), (-5.4, 20.4), (-6.2, 11.0))]
            self._shape(lips, _MOUTH, _LINE)
            self._shape([(-5.2, 11.2), (5.2, 11.2), (4.6, 12.5), (-4.6, 12.5)], _WHITE)
            self._ellipse(0, 17, 2.4, 1.1, (228, 104, 112))

    def _bangs(self) -> None:
        sway = self.rng.uniform(-1.5, 1.5)
        crown = curve((22.5, 13), (27, -36.5), (-27, -36.5), (-22.5, 13))
        left = [(-18.5, 15), (-17.6, 4), (-16.6, -2), (-13, -4), (-10 + sway, -10)]
        middle = [(-5, -5.5), (-1 + sway, -11.5), (4, -5), (9 + sway, -10.5)]
        right = [(13, -4), (16.6, -2), (17.6, 4), (18.5, 15)]
        self._shape([*crown, *left, *middle, *right], self.hair, self.hair_line)
        self._stroke(curve((-14, -13), (-6, -19), (6, -19), (14, -13)), self.hair_light, 2.0)
        self._stroke(curve((-10 + sway, -10), (-9, -14), (-7, -17), (-4, -20)), self.hair_shade, 0.9)
        self._stroke(curve((9 + sway, -10.5), (8, -14), (6, -17), (3, -20)), self.hair_shade, 0.9)

    def _ornaments(self) -> None:
        if self.character.hair_style != "twintails":
            return
        for side in (-1, 1):
            self._ellipse(side * 20.5, -11, 2.6, 3.2, _WHITE, _LINE)


def curve(start: Point, first: Point, second: Point, end: Point, steps: int = 14) -> list[Point]:
    """Return points along a cubic Bezier curve."""
    points = []
    for n in range(steps + 1):
        t = n / steps
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        points.append(
            (
                a * start[0] + b * first[0] + c * second[0] + d * end[0],
                a * start[1] + b * first[1] + c * second[1] + d * end[1],
            )
        )
    return points


def grid(pictures: Sequence[npt.NDArray[np.uint8]], columns: int, zoom: int = 1) -> Image.Image:
    """Lay pictures of one size out in rows, for people to look at."""
    height, width = pictures[0].shape[:2]
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for n, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (n % columns * width, n // columns * height))
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)
