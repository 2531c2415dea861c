"""The line of every key: what an editor would show."""

from __future__ import annotations

import json

import tomli
from hypothesis import given
from hypothesis import strategies as st

from assay.matrix.locate import line_of, lines

TEXT = '''\
# comment = [1
[defaults]
cuda = "12.1.105" # [not a table]
flash-attn = { nvcc = "12.4", head-dims = [
    64,  # the first
    96,
] }
text = """
[[row]]
id = "not a row"
"quoted\\""""""
literal = \'\'\'
# '' no comment
\'\'\'

[[row]]
id = "a"
because = [
    { check = "x", matches = "a, b] }" },
    { check = 'y#"', matches = '\\' },
]
env."A.B" = "1"
"sp ace".x = 2

[row.flash-attn]
nvcc = "11.8"

[[row]]
id = "b"
gpus = ["A100", "A10"]
[[row.deep.er]]
one = 1
[[row.deep.er]]
one = 2026-01-01T00:00:00Z
[row.deep.er.table]
x = true
'''


def test_lines_of_everything():
    known = lines(TEXT)
    expected = {
        ("defaults",): 2,
        ("defaults", "cuda"): 3,
        ("defaults", "flash-attn", "nvcc"): 4,
        ("defaults", "flash-attn", "head-dims", 0): 5,
        ("defaults", "flash-attn", "head-dims", 1): 6,
        ("defaults", "text"): 8,
        ("defaults", "literal"): 12,
        ("row",): 16,
        ("row", 0): 16,
        ("row", 0, "id"): 17,
        ("row", 0, "because"): 18,
        ("row", 0, "because", 0, "matches"): 19,
        ("row", 0, "because", 1, "check"): 20,
        ("row", 0, "env", "A.B"): 22,
        ("row", 0, "sp ace", "x"): 23,
        ("row", 0, "flash-attn"): 25,
        ("row", 0, "flash-attn", "nvcc"): 26,
        ("row", 1): 28,
        ("row", 1, "gpus", 1): 30,
        ("row", 1, "deep", "er", 0, "one"): 32,
        ("row", 1, "deep", "er", 1, "one"): 34,
        ("row", 1, "deep", "er", 1, "table", "x"): 36,
    }
    assert {path: known.get(path) for path in expected} == expected
    assert len(known) == len(set(known))


def test_nearest_thing_around_a_path_that_is_not_in_the_text():
    known = lines(TEXT)
    assert line_of(("row", 1, "because", 0, "check"), known) == 28
    assert line_of(("row", 0, "flash-attn", "url"), known) == 25
    assert line_of(("axes", "id"), known) is None
    assert line_of((), known) is None


def test_windows_line_ends_and_empty_text():
    assert lines('[a]\r\nb = """x\r\ny"""\r\nc = 1\r\n')["a", "c"] == 4
    assert lines("") == {}


def paths(value, path=()):
    """Every path of a parsed value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def test_every_parsed_path_is_found_and_no_other():
    # A table that only a header's dotted name makes ([row.deep.er] -> row.deep) has no line of its own.
    assert set(paths(tomli.loads(TEXT))) - set(lines(TEXT)) == {("row", 1, "deep")}
    assert set(lines(TEXT)) <= set(paths(tomli.loads(TEXT)))


keys = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=6)
scalars = st.one_of(st.integers(-9, 9), st.booleans(), keys, st.sampled_from(["]", "}", "#", "a = 1", "'''", '"""']))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)


def written(value) -> str:
    """TOML of a value: JSON's strings are TOML's basic strings for ASCII text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(written, value)) + "]"
    return json.dumps(value)


@given(st.dictionaries(keys, values, max_size=4))
def test_any_text_that_parses_is_walked_to_its_end(table):
    text = "".join(f"{json.dumps(key)} = {written(value)}\n" for key, value in table.items())
    assert set(lines(text)) == set(paths(tomli.loads(text)))
