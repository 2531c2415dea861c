"""Whatever a matrix file holds, rows or problems come of it, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay import matrix
from assay.errors import MatrixError
from assay.matrix.row import Row

scalars = st.one_of(
    st.integers(), st.booleans(), st.sampled_from(["", "a", "12.1.105", "none", "reject", "build.torch"])
)
names = st.sampled_from(
    [
        "id",
        "expect",
        "because",
        "check",
        "matches",
        "cuda",
        "flash-attn",
        "nvcc",
        "gpus",
        "env",
        "files",
        "include",
        "x",
    ]
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=15
)


@given(st.dictionaries(st.sampled_from(["row", "defaults", "axes", "publish", "x"]), anything, max_size=4))
def test_no_content_gets_past_as_anything_but_rows_or_problems(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text("".join(f"{key} = {written(value)}\n" for key, value in content.items()), encoding="utf-8")
    found = rows_or_problems(file)
    assert found
    assert all(isinstance(item, Row) or item.startswith(str(file)) for item in found)


# What somebody may write by mistake, or in bad faith, wherever the file has a value.
ODD = [
    True,
    10**30,
    "",
    "\0",
    "a\nb",
    "..",
    "/dev/null",
    "x" * 5000,
    "x/" * 3000,
    "{x}",
    "[",
    "base",
    [[]],
    [{}],
    {"a": {}},
]
FULL: dict[str, Any] = {
    "publish": {"level": "gpu", "prefix": "v1"},
    "defaults": {"env": {"A": "b"}, "gpus": ["A100"], "flash-attn": {"version": "2.8.3", "archs": ["80"]}},
    "axes": {
        "id": "a{cuda}",
        "cuda": ["12.1.105", "12.2.0"],
        "include": [{"cuda": "12.1.105", "expect": "certify"}, {"cuda": "12.2.0", "expect": "certify"}],
        "exclude": [{"cuda": "12.2.0"}],
    },
    "row": [
        {"id": "b", "expect": "reject", "because": [{"check": "torch.import", "matches": "x"}]},
        {
            "id": "c",
            "expect": "certify",
            "base": "debian:bookworm",
            "files": {"/x": "own.dockerfile"},
            "requirements": "requirements.txt",
            "dockerfile": "own.dockerfile",
            "context": "app",
            "flash-attn": {"source": "compile", "nvcc": "12.4", "head-dims": [64], "url": "https://x.invalid/y.whl"},
        },
    ],
}


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*place, key)
        yield from _places(below, (*place, key))


@pytest.mark.parametrize("place", list(_places(FULL)), ids=lambda place: ".".join(map(str, place)))
def test_no_value_anywhere_is_anything_but_accepted_or_a_problem(place, tmp_path):
    """With files beside the matrix, unlike `test_no_content_gets_past...`: names of files reach the file system."""
    (tmp_path / "own.dockerfile").write_text("RUN true\n")
    (tmp_path / "requirements.txt").write_text(f"six==1.16.0 --hash=sha256:{'0' * 64}\n")
    (tmp_path / "app").mkdir()
    file = tmp_path / "any.toml"
    for odd in ODD:
        raw = copy.deepcopy(FULL)
        inner = raw
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = odd
        file.write_text("".join(f"{key} = {written(value)}\n" for key, value in raw.items()), encoding="utf-8")
        found = rows_or_problems(file)
        assert found
        assert all(isinstance(item, Row) or item.startswith(str(file)) for item in found), odd


def rows_or_problems(file: Path):
    try:
        return matrix.load(file).rows
    except MatrixError as error:
        return error.problems


def written(value) -> str:
    """TOML of a value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)
