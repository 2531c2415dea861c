"""The rows of a matrix for people: what differs between them in columns, what they share once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assay.matrix.row import FlashAttn, Row

GAP = 2
"""Between two columns."""


def _flash_attn(row: Row) -> str:
    made = row.flash_attn
    compiler = f", nvcc {made.nvcc}" if made.source in ("auto", "compile") else ""
    return "none" if made.source == "none" else f"{made.version} {made.source}{compiler}"


def _kernels(made: FlashAttn) -> str:
    """Return what flash-attn is asked to hold, whatever it comes from: `flash-attn.kernels` asks it of every wheel."""
    if made.source == "none":
        return "none"
    dims = ", ".join(str(dim) for dim in made.head_dims)
    return f"head dims {dims} in {', '.join(made.dtypes)} for {', '.join(f'sm_{arch}' for arch in made.archs)}"


# Everything that a row says about its image and its way, in the order in which people ask; empty where there is nothing
# to say. `library path` is no part of `toolkit`: rows tend to differ in one of the two.
FIELDS: Mapping[str, Callable[[Row], str]] = {
    "base": lambda row: row.base,
    "CUDA": lambda row: row.cuda,
    "toolkit": lambda row: row.toolkit,
    "library path": lambda row: "toolkit first" if row.library_path == "toolkit" else "",
    "torch": lambda row: row.torch,
    "python": lambda row: row.python,
    "flash-attn": _flash_attn,
    "kernels": lambda row: _kernels(row.flash_attn),
    "runtime": lambda row: row.runtime,
    "env": lambda row: " ".join(f"{name}={value}" for name, value in row.env),
    "files": lambda row: ", ".join(PurePosixPath(target).name for target, _ in row.files),
    "requirements": lambda row: row.requirements.path if row.requirements else "",
    "dockerfile": lambda row: row.dockerfile or "",
    "context": lambda row: row.context or "",
    "optional libraries": lambda row: ", ".join(row.optional_libraries),
    "GPUs": lambda row: ", ".join(row.gpus),
    "publish level": lambda row: row.required_level.value,
    "tags": lambda row: ", ".join(row.tags),
    "runner": lambda row: ", ".join(row.runner),
}


def table(rows: Sequence[Row], width: int) -> RenderableType:
    """Return the rows as a table of at most `width` columns; as a list where whole words would not fit into one."""
    values = {name: [read(row) for row in rows] for name, read in FIELDS.items()}
    shared = {name: cells[0] for name, cells in values.items() if len(set(cells)) == 1}
    columns: dict[str, list[str]] = {"row": [row.id for row in rows], "expected": [row.expect for row in rows]}
    columns.update((name, cells) for name, cells in values.items() if name not in shared)
    parts: list[RenderableType] = [_grid(columns, widths)] if (widths := _widths(columns, width)) else _list(columns)
    parts.append(Text(f"{'every row' if len(rows) > 1 else rows[0].id}: {_in_line(shared)}"))
    for row in rows:
        parts += [Text(f"{row.id}: {row.what}")] if row.what else []
        parts += [Text(f"{row.id}: must fail {one.check} matching {one.matches}") for one in row.because]
    return Group(*parts)


def _widths(columns: Mapping[str, Sequence[str]], width: int) -> list[int] | None:
    """Return a width for each column, wrapping the widest ones between words; None where they do not fit even so.

    Rich would break words in the middle before it gave up.
    """
    texts = [[name, *cells] for name, cells in columns.items()]
    least = [max(len(word) for text in column for word in text.split()) for column in texts]
    widths = [max(len(text) for text in column) for column in texts]
    room = width - GAP * (len(texts) - 1)
    while sum(widths) > room:
        spare = [index for index in range(len(widths)) if widths[index] > least[index]]
        if not spare:
            return None
        widths[max(spare, key=lambda index: widths[index])] -= 1
    return widths


def _grid(columns: Mapping[str, Sequence[str]], widths: Sequence[int]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for name, width in zip(columns, widths, strict=True):
        grid.add_column(name, width=width)
    for cells in zip(*columns.values(), strict=True):
        grid.add_row(*(Text(cell) for cell in cells))
    return grid


def _list(columns: Mapping[str, Sequence[str]]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for row_id, expect, *cells in zip(*columns.values(), strict=True):
        lines.append(Text(f"{row_id}: {expect}"))
        lines += [Text(f"  {name}: {cell}") for name, cell in zip(list(columns)[2:], cells, strict=True) if cell]
    return lines


def _in_line(values: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in values.items() if value)
