"""A row before it is checked: the layers of defaults, axes and the row's own keys, with where each value came from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assay.matrix.axes import Combination, Setting, expand
from assay.matrix.locate import TomlPath
from assay.matrix.schema import RowFields
from assay.suggest import perhaps

# Tables whose keys are laid over each other one by one; any other value replaces the one below it.
MERGED = ("flash-attn", "env", "files")
# Forty times what GitHub Actions takes, and read in seconds; five axes of twenty values would take hours.
COMBINATIONS = 10_000
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass
class Draft:
    """The values of one row as the file writes them.

    path: where the row begins in the file. origin: for a key, or a key of a merged table, where its value stands.
    """

    path: TomlPath
    values: dict[str, Any] = field(default_factory=dict)
    origin: dict[tuple[str, ...], TomlPath] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The row's id, or nothing where it has none."""
        return str(self.values.get("id", ""))

    def fields(self) -> RowFields:
        """Return the values typed, with the schema's defaults for the rest. The parts have been checked before.

        Without the id, which a template may have made and the rules have yet to check: `Draft.id` has it.
        """
        return RowFields.model_validate({key: value for key, value in self.values.items() if key != "id"})

    def where(self, *keys: str | int) -> TomlPath:
        """Return where a value stands, or what is around it, or where the row begins."""
        for length in range(len(keys), 0, -1):
            found = self.origin.get(tuple(str(key) for key in keys[:length]))
            if found is not None:
                return (*found, *keys[length:])
        return self.path

    def lay(self, settings: Iterable[Setting]) -> None:
        """Lay settings over what is there."""
        for setting in settings:
            if setting.key in MERGED:
                table = self.values.setdefault(setting.key, {})
                for key, value in setting.value.items():
                    table[key] = value
                    self.origin[setting.key, key] = (*setting.path, key)
                self.origin.setdefault((setting.key,), setting.path)
            else:
                self.values[setting.key] = setting.value
                self.origin[setting.key,] = setting.path


def drafts(raw: Mapping[str, Any]) -> tuple[list[Draft], list[tuple[TomlPath, str]]]:
    """Return the rows of a file, those of the axes first, and what is wrong with the axes as (path, message)."""
    defaults = settings(raw.get("defaults", {}), ("defaults",))
    rows, problems = _from_axes(raw.get("axes", {}), defaults)
    for index, table in enumerate(raw.get("row", [])):
        draft = Draft(("row", index))
        draft.lay(defaults)
        draft.lay(settings(table, draft.path))
        rows.append(draft)
    return rows, problems


def settings(table: Mapping[str, Any], path: TomlPath) -> list[Setting]:
    """Return a table's values as settings."""
    return [Setting(key, value, (*path, key)) for key, value in table.items()]


def _from_axes(raw: Mapping[str, Any], defaults: Sequence[Setting]) -> tuple[list[Draft], list[tuple[TomlPath, str]]]:
    axes = {key: values for key, values in raw.items() if key not in ("id", "include", "exclude")}
    include, exclude = raw.get("include", []), raw.get("exclude", [])
    problems = _exclude_problems(axes, exclude)
    count = math.prod(map(len, axes.values()))
    if count > COMBINATIONS:
        return [], [
            (
                ("axes",),
                f"the axes have {count} combinations, and {COMBINATIONS} are the most that are looked at: take values "
                "out, or split the file",
            )
        ]
    rows = []
    for combination in expand(axes, include=include, exclude=exclude):
        draft = Draft(_begins(combination))
        draft.lay(defaults)
        draft.lay(combination)
        if "id" not in draft.values:
            draft.values["id"], unknown = _row_id(raw.get("id") or _default_template(combination), draft)
            if unknown:
                draft.values["id"], _ = _row_id(_default_template(combination), draft)
            draft.origin["id",] = ("axes", "id")
            problems += [
                (("axes", "id"), f"{name!r} in the template of ids is no value of the row; {perhaps(name, known)}")
                for name, known in unknown
            ]
        rows.append(draft)
    return rows, problems


def _default_template(combination: Combination) -> str:
    """Join what makes the combination different from others."""
    names = dict.fromkeys(setting.key for setting in combination)
    varying = [name for name in names if name not in ("expect", "because", "what")]
    return "-".join(f"{{{name}}}" for name in varying or ["expect"])


def _begins(combination: Combination) -> TomlPath:
    """Return what stands for a row that the axes made: the include that it comes from, or the axes."""
    first = combination[0].path if combination else ("axes",)
    return first[:3] if first[1:2] == ("include",) else ("axes",)


def _exclude_problems(
    axes: Mapping[str, Sequence[Any]], exclude: Sequence[Mapping[str, Any]]
) -> list[tuple[TomlPath, str]]:
    """An exclude that names no axis, or a value that its axis does not have, leaves nothing out: a slip of the pen."""
    problems: list[tuple[TomlPath, str]] = []
    for index, table in enumerate(exclude):
        for key, value in table.items():
            path = ("axes", "exclude", index, key)
            if key not in axes:
                problems.append((path, f"it excludes by {key!r}, which is no axis; {perhaps(key, axes)}"))
            elif not isinstance(value, dict) and value not in axes[key]:
                problems.append(
                    (path, f"the axis {key!r} has no value {value!r}; {perhaps(str(value), map(str, axes[key]))}")
                )
    return problems


def _row_id(template: str, draft: Draft) -> tuple[str, list[tuple[str, list[str]]]]:
    """Fill a template, and return the fields that it names in vain, each with the valid ones."""
    values = draft.fields().model_dump(by_alias=True, exclude={"id", "because", "what"}, exclude_none=True)
    known = dict(_flat(values))
    unknown: list[tuple[str, list[str]]] = []

    def fill(match: re.Match[str]) -> str:
        if match[1] not in known:
            unknown.append((match[1], list(known)))
        return known.get(match[1], "")

    # What an id cannot hold ("2.4.0+cu121", "nvidia/cuda:12.1.1") becomes a hyphen.
    return re.sub(r"[^a-z0-9._-]+", "-", _FIELD.sub(fill, template).lower()).strip("-."), unknown


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield `flash-attn.version` and the like, and for a table all its values joined."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
            yield f"{prefix}{key}", "-".join(text for _, text in _flat(value))
        else:
            yield f"{prefix}{key}", "-".join(map(str, value)) if isinstance(value, list) else str(value)
