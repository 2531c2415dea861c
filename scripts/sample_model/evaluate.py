"""Grade what an exported model draws for prompts that were kept from training."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from assay_checks import cartoon, cartoon_grader, cartoon_prompts
from newbie import weights
from newbie.pipeline import NewbiePipeline, Report
from newbie.sampler import Sampling


@dataclass(frozen=True)
class Evaluation:
    """Grades of all pictures, the pictures themselves, and the last drawing's report."""

    prompts: list[str]
    grades: list[cartoon_grader.Grade]
    pictures: list[npt.NDArray[np.uint8]]
    seconds: float
    report: Report

    @property
    def share(self) -> float:
        """Share of the attributes that are right."""
        return sum(grade.right for grade in self.grades) / sum(len(grade.wanted) for grade in self.grades)

    def to_json(self) -> dict[str, Any]:
        """Return the table by attribute, and what ran."""
        wanted = Counter(_kind(name) for grade in self.grades for name in grade.wanted)
        wrong = Counter(_kind(name) for grade in self.grades for name in grade.wrong)
        mistakes = Counter(
            f"{_kind(name)}: {grade.wanted[name]} -> {grade.read.get(name)}"
            for grade in self.grades
            for name in grade.wrong
        )
        return {
            "prompts": len(self.grades),
            "right": round(self.share, 4),
            "by_attribute": {name: round(1 - wrong[name] / count, 4) for name, count in sorted(wanted.items())},
            "faultless_pictures": sum(not grade.wrong for grade in self.grades),
            "mistakes": dict(mistakes.most_common(12)),
            "seconds_per_picture": round(self.seconds / len(self.grades), 4),
            "attention": self.report.attention,
            "attention_calls": self.report.attention_calls,
            "device": self.report.device,
            "dtype": self.report.dtype,
        }


def held_out_prompts(count: int, seed: int) -> list[tuple[cartoon.Scene, str]]:
    """Return scenes that training never saw, each with a prompt."""
    rng = random.Random(seed)  # noqa: S311 - prompts, no secrets
    scenes = [cartoon.random_scene(rng, for_training=False) for _ in range(count)]
    return [(scene, cartoon_prompts.prompt(scene, rng)) for scene in scenes]


def pipeline(folder: Path, device: str, dtype: str, attention: str = "auto") -> NewbiePipeline:
    """Load an exported model."""
    return NewbiePipeline(weights.load(folder, dtype), device=device, dtype=dtype, attention_backend=attention)


def evaluate(
    drawer: NewbiePipeline, count: int, seed: int, sampling: Sampling | None = None, batch: int = 50
) -> Evaluation:
    """Draw and grade `count` held-out prompts."""
    asked = held_out_prompts(count, seed)
    pictures: list[npt.NDArray[np.uint8]] = []
    seconds = 0.0
    for start in range(0, count, batch):
        drawing = drawer.draw(
            [prompt for _, prompt in asked[start : start + batch]],
            seed=seed + start,
            height=cartoon.SIZE,
            width=cartoon.SIZE,
            sampling=sampling,
        )
        seconds += drawing.report.seconds
        pictures += [picture.numpy() for picture in drawing.pictures]
    grades = [cartoon_grader.grade(picture, scene) for picture, (scene, _) in zip(pictures, asked, strict=True)]
    return Evaluation([prompt for _, prompt in asked], grades, pictures, seconds, drawing.report)


def _kind(name: str) -> str:
    return name.rsplit(".", 1)[-1]
