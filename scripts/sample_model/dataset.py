"""Draw the training pictures and write their prompts, by many processes into files that the trainer maps."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from assay_checks import cartoon, cartoon_prompts
from tokenizers import Tokenizer

from . import drawing, labels

WORDINGS = 4
"""Prompts written for each picture, each worded anew."""
TOKENS = 96
"""Tokens that a prompt is padded to; the longest of 3,000 had 88."""
CHUNK = 250
"""Pictures that a process draws before it reports."""


@dataclass(frozen=True)
class _Job:
    folder: Path
    start: int
    seed: int


class Dataset:
    """Pictures (n, 128, 128, 3) uint8 and token ids (n, WORDINGS, TOKENS) int16, filled from the front while in use.

    labels: (n, tables) int64, the class numbers of `labels.TABLES`.
    """

    def __init__(self, folder: Path, count: int, seed: int, tokenizer: Tokenizer, workers: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.count = count - count % CHUNK
        if not self.count:
            raise ValueError(f"{count} pictures make no chunk of {CHUNK}")
        self.pictures = _map(folder, "pictures", (self.count, cartoon.SIZE, cartoon.SIZE, 3), np.uint8, create=True)
        self.tokens = _map(folder, "tokens", (self.count, WORDINGS, TOKENS), np.int16, create=True)
        self.labels = _map(folder, "labels", (self.count, len(labels.TABLES)), np.int64, create=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "count").write_text(str(self.count))
        self._done = np.zeros(self.count // CHUNK, bool)
        self._failure: BaseException | None = None
        jobs = [_Job(folder, start, seed) for start in range(0, self.count, CHUNK)]
        threading.Thread(target=self._draw, args=(jobs, workers), daemon=True).start()

    def _draw(self, jobs: list[_Job], workers: int) -> None:
        try:
            with get_context("spawn").Pool(workers) as pool:
                for start in pool.imap_unordered(_draw_chunk, jobs):
                    self._done[start // CHUNK] = True
        except BaseException as failure:
            self._failure = failure

    def wait(self) -> None:
        """Return when every picture is drawn."""
        while self.ready < self.count:
            time.sleep(0.5)

    @property
    def ready(self) -> int:
        """Number of pictures at the front that are all drawn. Raises RuntimeError where a drawing process failed."""
        if self._failure is not None:
            raise RuntimeError(f"drawing the training pictures failed: {self._failure}") from self._failure
        return CHUNK * (self.count // CHUNK if self._done.all() else int(np.argmin(self._done)))


def _map(
    folder: Path, name: str, shape: tuple[int, ...], dtype: type[np.generic], *, create: bool
) -> npt.NDArray[np.generic]:
    return np.memmap(folder / f"{name}.raw", dtype=dtype, mode="w+" if create else "r+", shape=shape)


def _draw_chunk(job: _Job) -> int:
    """Fill one chunk and return its start. Runs in a process of its own."""
    count = int((job.folder / "count").read_text())
    pictures = _map(job.folder, "pictures", (count, cartoon.SIZE, cartoon.SIZE, 3), np.uint8, create=False)
    tokens = _map(job.folder, "tokens", (count, WORDINGS, TOKENS), np.int16, create=False)
    classes = _map(job.folder, "labels", (count, len(labels.TABLES)), np.int64, create=False)
    tokenizer = Tokenizer.from_file(str(job.folder / "tokenizer.json"))
    rng = random.Random(f"{job.seed}/{job.start}")  # noqa: S311 - pictures, no secrets
    for row in range(job.start, job.start + CHUNK):
        scene = cartoon.random_scene(rng, for_training=True)
        pictures[row] = drawing.draw(scene, rng)
        classes[row] = labels.of(scene)
        for wording in range(WORDINGS):
            tokens[row, wording] = padded(tokenizer.encode(cartoon_prompts.prompt(scene, rng)).ids)
    return job.start


def padded(ids: list[int]) -> npt.NDArray[np.int16]:
    """Pad ids to `TOKENS` with nought, the padding token. Raises ValueError for more of them."""
    if len(ids) > TOKENS:
        raise ValueError(f"a prompt of {len(ids)} tokens does not fit into {TOKENS}")
    return np.array(ids + [0] * (TOKENS - len(ids)), np.int16)
