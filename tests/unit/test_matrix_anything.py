"""Whatever a matrix file holds, rows or problems come of it, and nothing else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
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


@settings(deadline=None)  # it is about what comes out, on a machine however busy
@given(st.dictionaries(st.sampled_from(["row", "defaults", "axes", "publish", "x"]), anything, max_size=4))
def test_no_content_gets_past_as_anything_but_rows_or_problems(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text("".join(f"{key} = {written(value)}\n" for key, value in content.items()), encoding="utf-8")
    found = rows_or_problems(file)
    assert found
    assert all(isinstance(item, Row) or item.startswith(str(file)) for item in found)


def rows_or_problems(file: Path):
    try:
        return matrix.load(file).rows
    except MatrixError as error:
        return error.problems


def written(value) -> str:
    """TOML of a value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
