"""Axes as GitHub Actions combines them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assay.matrix.axes import expand


def plain(combinations):
    """Combinations as GitHub would print them; of two settings of a key the later holds."""
    return [{setting.key: setting.value for setting in combination} for combination in combinations]


def test_the_example_of_github_actions_documentation():
    combinations = expand(
        {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]},
        include=[
            {"color": "green"},
            {"color": "pink", "animal": "cat"},
            {"fruit": "apple", "shape": "circle"},
            {"fruit": "banana"},
            {"fruit": "banana", "animal": "cat"},
        ],
    )
    assert plain(combinations) == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_exclude_needs_only_a_partial_match_and_goes_first():
    combinations = expand(
        {"os": ["a", "b"], "version": [1, 2], "x": [3, 4]},
        exclude=[{"os": "a", "version": 1}, {"os": "b", "version": 2, "x": 4}],
        include=[{"os": "a", "version": 1, "x": 3}],
    )
    assert plain(combinations) == [
        {"os": "a", "version": 2, "x": 3},
        {"os": "a", "version": 2, "x": 4},
        {"os": "b", "version": 1, "x": 3},
        {"os": "b", "version": 1, "x": 4},
        {"os": "b", "version": 2, "x": 3},
        {"os": "a", "version": 1, "x": 3},
    ]


def test_exclude_matches_tables_partially():
    axes = {"flash-attn": [{"nvcc": "12.4", "source": "auto"}, {"nvcc": "11.8", "source": "auto"}]}
    assert plain(expand(axes, exclude=[{"flash-attn": {"nvcc": "11.8"}}])) == [{"flash-attn": axes["flash-attn"][0]}]


def test_include_alone_makes_rows_and_nothing_makes_none():
    assert plain(expand({}, include=[{"a": 1}, {"a": 2, "b": 3}])) == [{"a": 1}, {"a": 2, "b": 3}]
    assert expand({}) == []


def test_where_each_value_stands():
    (combination,) = expand({"a": [1]}, include=[{"b": 2}])
    assert [setting.path for setting in combination] == [("axes", "a", 0), ("axes", "include", 0, "b")]


axes = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
partial = st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), min_size=1, max_size=3), max_size=4)


@given(axes, partial, partial)
def test_include_never_overwrites_an_axis_and_excluded_values_never_remain(axes, include, exclude):
    kept = plain(expand(axes, exclude=exclude))
    combinations = plain(expand(axes, include=include, exclude=exclude))
    assert [{key: row[key] for key in axes} for row in combinations[: len(kept)]] == kept
    assert all(
        any(row[key] != value for key, value in e.items() if key in row) or set(e) - set(row)
        for row in kept
        for e in exclude
    )
    assert all(row in include for row in combinations[len(kept) :])
