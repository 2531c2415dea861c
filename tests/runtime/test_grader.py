"""The grader reads every drawn picture without a fault, and tells what is wrong with a wrong one."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from assay_checks import cartoon, cartoon_grader

from sample_model import drawing

TABLES = {
    "hair_colour": tuple(cartoon.HAIR_COLOURS),
    "eye_colour": tuple(cartoon.EYE_COLOURS),
    "clothing_colour": tuple(cartoon.CLOTHING_COLOURS),
    "hair_style": cartoon.HAIR_STYLES,
    "expression": cartoon.EXPRESSIONS,
}


def scenes(count: int, seed: int = 5):
    rng = random.Random(seed)  # noqa: S311 - pictures, no secrets
    return [(cartoon.random_scene(rng, for_training=n % 2 == 0), rng) for n in range(count)]


def test_every_drawn_picture_is_read_without_a_fault():
    for scene, rng in scenes(150):
        grade = cartoon_grader.grade(drawing.draw(scene, rng), scene)
        assert grade.wrong == [], (scene, grade.read)
        assert grade.right == 2 + 5 * len(scene.characters)


def test_small_errors_of_a_generated_picture_change_no_reading():
    noise = np.random.default_rng(1)
    for scene, rng in scenes(60, seed=6):
        picture = drawing.draw(scene, rng).astype(np.float32)
        blurred = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1) + np.roll(picture, (1, 1), (0, 1))) / 4
        grainy = np.clip(blurred + noise.normal(0, 6, blurred.shape), 0, 255).astype(np.uint8)
        assert cartoon_grader.grade(grainy, scene).wrong == [], scene


@pytest.mark.parametrize("name", TABLES)
def test_one_other_attribute_is_the_one_that_is_wrong(name):
    for scene, rng in scenes(12, seed=7):
        first, *others = scene.characters
        for value in TABLES[name]:
            if value == getattr(first, name):
                continue
            changed = dataclasses.replace(scene, characters=(dataclasses.replace(first, **{name: value}), *others))
            grade = cartoon_grader.grade(drawing.draw(changed, rng), scene)
            assert grade.wrong == [f"{first.position}.{name}"]
            assert grade.read[f"{first.position}.{name}"] == value


def test_another_background_and_another_side_are_told():
    for scene, rng in scenes(20, seed=8):
        other = next(name for name in cartoon.BACKGROUNDS if name != scene.background)
        assert cartoon_grader.grade(drawing.draw(dataclasses.replace(scene, background=other), rng), scene).wrong == [
            "background"
        ]
        (alone,) = (character for character in scene.characters if character.position == scene.characters[0].position)
        side = "right" if alone.position == "left" else "left"
        moved = dataclasses.replace(scene, characters=(dataclasses.replace(alone, position=side),))
        grade = cartoon_grader.grade(drawing.draw(moved, rng), scene)
        assert "positions" in grade.wrong
        assert f"{alone.position}.hair_colour" in grade.wrong


def test_the_picture_of_another_scene_gets_no_more_than_chance_gives():
    """What a stored picture can hope for."""
    asked = scenes(80, seed=9)
    right = wanted = 0
    for (scene, _), (other, rng) in zip(asked, asked[1:] + asked[:1], strict=True):
        grade = cartoon_grader.grade(drawing.draw(other, rng), scene)
        right, wanted = right + grade.right, wanted + len(grade.wanted)
    assert right / wanted < 0.3


@pytest.mark.parametrize("fill", ["noise", "grey", "black"])
def test_what_is_no_picture_shows_nobody(fill):
    picture = {
        "noise": np.random.default_rng(2).integers(0, 256, (128, 128, 3), dtype=np.uint8),
        "grey": np.full((128, 128, 3), 128, np.uint8),
        "black": np.zeros((128, 128, 3), np.uint8),
    }[fill]
    assert cartoon_grader.read(picture)["positions"] == ""


@pytest.mark.parametrize("picture", [np.zeros((64, 64, 3), np.uint8), np.zeros((128, 128, 3), np.float32)])
def test_other_shapes_and_types_are_refused(picture):
    with pytest.raises(ValueError, match="the grader reads"):
        cartoon_grader.read(picture)
