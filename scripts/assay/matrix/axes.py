"""Combine the values of axes into rows, with `include` and `exclude` as GitHub Actions' `strategy.matrix` has them.

Its rules (workflow syntax, "Expanding or adding matrix configurations"): exclude goes first, and a partial match is
enough. Each include is added to every combination of the axes none of whose axis values it would overwrite (values that
an earlier include added may be overwritten); one that fits nowhere becomes a combination of its own, to which later
ones are not added.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay.matrix.locate import TomlPath


@dataclass(frozen=True)
class Setting:
    """A value for one key, and where in the file it stands."""

    key: str
    value: Any
    path: TomlPath


Combination = list[Setting]


def expand(
    axes: Mapping[str, Sequence[Any]],
    *,
    include: Sequence[Mapping[str, Any]] = (),
    exclude: Sequence[Mapping[str, Any]] = (),
) -> list[Combination]:
    """Return the combinations in a stable order: the first axis varies slowest, rows of their own come last.

    Of two settings with the same key in a combination, the later one holds.

    >>> [[(s.key, s.value) for s in c] for c in expand({"cuda": ["12.1.1"], "python": ["3.10", "3.11"]})]
    [[('cuda', '12.1.1'), ('python', '3.10')], [('cuda', '12.1.1'), ('python', '3.11')]]
    """
    columns = [
        [Setting(key, value, ("axes", key, index)) for index, value in enumerate(values)]
        for key, values in axes.items()
    ]
    combinations = [list(cells) for cells in itertools.product(*columns)] if axes else []
    combinations = [
        cells
        for cells in combinations
        if not any(_contains({cell.key: cell.value for cell in cells}, excluded) for excluded in exclude)
    ]
    added: list[Combination] = [[] for _ in combinations]
    own: list[Combination] = []
    for index, included in enumerate(include):
        settings = [Setting(key, value, ("axes", "include", index, key)) for key, value in included.items()]
        on_axes = {key: value for key, value in included.items() if key in axes}
        fits = [
            number
            for number, cells in enumerate(combinations)
            if all(cell.value == on_axes.get(cell.key, cell.value) for cell in cells)
        ]
        for number in fits:
            added[number] += [setting for setting in settings if setting.key not in axes]
        if not fits:
            own.append(settings)
    return [cells + extra for cells, extra in zip(combinations, added, strict=True)] + own


def _contains(whole: Any, part: Any) -> bool:
    """Say whether `part` is a partial match of `whole`: every key of a table that it names, or the same value."""
    if isinstance(whole, Mapping) and isinstance(part, Mapping):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    return bool(whole == part)
