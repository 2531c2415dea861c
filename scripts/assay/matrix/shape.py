"""Hold a parsed matrix file against its schema: every departure becomes one clear line, and what is wrong is taken out.

What is left goes on to the rules, so that a file with a misspelt key and an unknown release gets both messages at once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from assay.matrix.locate import TomlPath
from assay.matrix.schema import HINTS, TABLES, MatrixFile, keys
from assay.suggest import nearest, perhaps

_TYPES: Mapping[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
}
_WANTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
}


@dataclass(frozen=True)
class Departure:
    """Something in the file that the schema does not know: where, and what is wrong in one line."""

    path: TomlPath
    message: str


def check(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Departure]]:
    """Return the file without what its schema refuses, and a departure for each thing that was taken out."""
    cleaned = copy.deepcopy(dict(raw))
    departures: list[Departure] = []
    # Taking a broken element out can leave its table incomplete, which is found in the next round; each round removes
    # at least one element, so the file's size bounds the rounds.
    while errors := _errors(cleaned):
        paths = [_path(error, cleaned) for error in errors]
        departures += [
            Departure(path, _message(error, path))
            for error, path in zip(errors, paths, strict=True)
            if not _inside(path, departures) and not _emptied(error, path, departures)
        ]
        # Inner before outer and back before front, so that the paths still to come stay true.
        culprits = {_culprit(error, path) for error, path in zip(errors, paths, strict=True)}
        for path in sorted(culprits, key=_order, reverse=True):
            _take_out(cleaned, path)
    return cleaned, departures


def _errors(raw: Mapping[str, Any]) -> list[ErrorDetails]:
    try:
        MatrixFile.model_validate(raw)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=True)
    return []


def _path(error: ErrorDetails, raw: Mapping[str, Any]) -> TomlPath:
    """Return the error's path as the file has it: pydantic numbers a single reason, and marks a table's bad key."""
    path: TomlPath = ()
    value: Any = raw
    for step in error["loc"]:
        if step == "[key]":
            break
        if isinstance(step, int) and not isinstance(value, list):
            continue
        path = (*path, step)
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            value = None
    return path


def _inside(path: TomlPath, departures: list[Departure]) -> bool:
    """Say whether something around this was reported already: the rest follows from that."""
    return any(path[: len(found.path)] == found.path for found in departures if found.path)


def _emptied(error: ErrorDetails, path: TomlPath, departures: list[Departure]) -> bool:
    """Say whether a list is empty only because all of its elements were reported and taken out."""
    return error["type"] == "too_short" and any(found.path[: len(path)] == path for found in departures)


def _order(path: TomlPath) -> tuple[tuple[int, str], ...]:
    """Return a sort key for paths: indices by number, keys by name."""
    return tuple((step, "") if isinstance(step, int) else (-1, step) for step in path)


def _message(error: ErrorDetails, path: TomlPath) -> str:
    """Say in one line what is wrong."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    key = next((step for step in reversed(path) if isinstance(step, str)), "")
    if kind == "extra_forbidden":
        return f"unknown key {key!r}; {_perhaps_key(key, path)}"
    if kind == "missing":
        return f"the key {key!r} is missing"
    if path == ("row",) and kind == "list_type":
        return "rows are an array of tables: write [[row]], with two brackets"
    if kind == "literal_error":
        choices = _literals(context["expected"])
        return f"{brief(value)} is not a value of {key!r}; {_perhaps_value(value, choices)}"
    if kind == "string_pattern_mismatch":
        hint = HINTS.get(context["pattern"], f"it must match {context['pattern']}")
        if error["loc"][-1] == "[key]":
            return f"the key cannot be {brief(value)}: {hint}"
        return f"{key!r} cannot be {brief(value)}: {hint}"
    if kind == "too_short":
        return f"{key!r} is empty; give at least one value, or leave the key out"
    if kind in _WANTED:
        quoted = f'; write it in quotes: "{value}"' if kind == "string_type" and _is_number(value) else ""
        return f"{key!r} must be {_WANTED[kind]}, but is {_TYPES.get(type(value), 'a date or time')}{quoted}"
    return f"{key!r} cannot be {brief(value)}: {error['msg']}"


def _perhaps_key(key: str, path: TomlPath) -> str:
    """Return the nearest key of the table that the path is in; or the table where such a key does exist."""
    parent = next((step for step in reversed(path[:-1]) if isinstance(step, str)), "")
    table = TABLES.get(parent, MatrixFile)
    if nearest(key, keys(table)) is None:
        owner = next((name for name, other in TABLES.items() if key in keys(other)), None)
        if owner is not None:
            return f"it belongs into {owner!r}"
    return perhaps(key, keys(table))


def _perhaps_value(value: Any, choices: list[str]) -> str:
    return perhaps(value, choices) if isinstance(value, str) else "choose from " + ", ".join(choices)


def _literals(expected: str) -> list[str]:
    """Take apart pydantic's list of choices: `'wheels', 'base' or 'none'`, or `32, 64 or 96`."""
    return [choice.strip("' ") for choice in expected.replace(" or ", ", ").split(", ")]


def brief(value: Any) -> str:
    """Return a value as messages quote it: its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _culprit(error: ErrorDetails, path: TomlPath) -> TomlPath:
    """Return what has to go: where a key is missing, the table that lacks it; but only the id of a row."""
    is_row_id = path[:1] == ("row",) and len(path) == 3
    return path[:-1] if error["type"] == "missing" and not is_row_id else path


def _take_out(raw: dict[str, Any], path: TomlPath) -> None:
    """Remove what is at the path. A row stays, with a stand-in for its id: the numbers of the others must stay true."""
    if path[:1] == ("row",) and len(path) == 2:
        raw["row"][path[1]] = {}
    elif path[:2] == ("axes", "include") and len(path) == 3:
        raw["axes"]["include"][path[2]] = {}  # adds nothing
    elif path[:1] == ("row",) and path[2:] == ("id",):
        raw["row"][path[1]]["id"] = f"row-{int(path[1]) + 1}"
    else:
        parent: Any = raw
        for step in path[:-1]:
            parent = parent[step]
        del parent[path[-1]]
