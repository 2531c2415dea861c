"""Matrices from their text, and the rows that tests of mistakes begin with."""

from __future__ import annotations

from pathlib import Path

from assay import matrix

CHECKS = ("torch.import", "libraries.resolved", "toolkit.matches-torch", "flash-attn.import", "sample.parity")
ROW = '[[row]]\nid = "a"\nexpect = "certify"\n'  # the line after it is line 4
REJECT = '[[row]]\nid = "a"\nexpect = "reject"\n'


def load_text(folder: Path, text: str) -> matrix.Matrix:
    """Load a text as `matrix.toml` of a folder."""
    file = folder / "matrix.toml"
    file.write_text(text, encoding="utf-8")
    return matrix.load(file, known_checks=CHECKS)
