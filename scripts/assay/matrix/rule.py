"""What a rule is: it is given a row and what it may look things up in, and yields (path in the row, message)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from assay.errors import MatrixError
from assay.matrix.draft import Draft
from assay.matrix.locate import TomlPath
from assay.matrix.schema import RowFields
from assay.releases import CudaRelease, Releases, TorchBuild

Problem = tuple[tuple[str | int, ...], str]


@dataclass(frozen=True)
class Context:
    """What the rules look things up in.

    known_checks: ids of all checks; None when they are not known, and ids are held against their form only.
    folder: where the matrix file lies.
    broken: paths in the file that the schema refused, and that nothing may follow from.
    """

    releases: Releases
    known_checks: Collection[str] | None
    folder: Path
    broken: Collection[TomlPath] = ()

    def refused(self, draft: Draft, *keys: str) -> bool:
        """Tell whether the schema refused one of these keys, in the row or in what lies below it."""
        return any(
            set(keys) & set(path)
            for path in self.broken
            if path[: len(draft.path)] == draft.path or path[0] in ("axes", "defaults")
        )

    def cuda(self, row: RowFields) -> CudaRelease | None:
        """Return the row's CUDA release, None where the tables have none of that name: another rule says so."""
        try:
            return self.releases.cuda(row.cuda)
        except MatrixError:
            return None

    def torch(self, row: RowFields) -> TorchBuild | None:
        """Return the row's torch build, None where the base brings it or the tables have none of that name."""
        return self.releases.torches.get(row.torch)


Rule = Callable[[Draft, RowFields, Context], Iterator[Problem]]
