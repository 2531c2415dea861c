"""Have the flash-attn wheels of rows made once, for other machines to use.

For each row, the wheel that `assay matrix` would use is found, fetched or compiled, and put into --out with the record
of how it was made: pass that folder to `assay matrix --wheelhouse`, on this machine or another. One that lies there
already and was made by the row's own recipe is not made again; where torch comes with the base, the image that the
base's name stands for belongs to the recipe. Rows without a wheel of their own, and rows that are meant to fail at
building it, are left out. Compiling needs a Docker engine, and takes as many jobs as memory allows.

exit codes: 0 every wheel is there; 2 bad usage or matrix; 3 one could not be had; 130 interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from assay import base, wheels
from assay.causes import cause
from assay.commands.common import add_matrix_options, add_wheelhouse, read_matrix
from assay.commands.matrix import interruptible
from assay.engine import Engine
from assay.errors import AssayError, BuildFailed, Cancelled, ExitCode, IngredientError
from assay.files import exclusive
from assay.matrix.row import Row
from assay.network import NetworkSettings
from assay.progress import View, follow_build
from assay.wheels import Wheel
from assay.wheels.collect import Collection, left_out

LOG = "flash-attn.log"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_matrix_options(parser, out=False)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("wheelhouse"),
        metavar="DIR",
        help="folder for the wheels (default: %(default)s)",
    )
    add_wheelhouse(parser, "folder with flash-attn wheels to use before any is downloaded or compiled")


def run(args: argparse.Namespace) -> ExitCode:
    """Provide the wheels and print where each row's is."""
    _, rows = read_matrix(args)
    wanted = [row for row in rows if left_out(row) is None]
    view = View([row.id for row in wanted])
    for row in rows:
        if why := left_out(row):
            view.note(f"{row.id} is left out: {why}")
    with exclusive(args.out), interruptible() as cancel:
        makers = Makers(out=args.out, wheelhouses=tuple(args.wheelhouse), view=view, cancel=cancel)
        with view.live():
            found = makers.provide(wanted)
    for row_id, path in found.items():
        print(f"{row_id}: {path}")
    if cancel.is_set():
        raise KeyboardInterrupt  # what was finished is there; `cli` has the words and the exit code
    missing = [row.id for row in wanted if row.id not in found]
    if missing:
        print(f"assay: no wheel for {', '.join(missing)}: see above, mend that, and run it again", file=sys.stderr)
    return ExitCode.INCONCLUSIVE if missing else ExitCode.AS_EXPECTED


@dataclass(kw_only=True)
class Makers:
    """What gets the wheels of rows into a folder, one after the other: a compile takes the whole machine."""

    out: Path
    wheelhouses: tuple[Path, ...]
    view: View
    cancel: threading.Event
    network: NetworkSettings = field(default_factory=NetworkSettings.from_host)

    @cached_property
    def engine(self) -> Engine:
        """The engine, looked for when a wheel needs one. Raises EngineError where there is none."""
        return Engine.connect(on_note=self.view.note)

    def provide(self, rows: Sequence[Row]) -> dict[str, Path]:
        """Return where each row's wheel is, by the row's id; a row whose wheel cannot be had does not stop the others.

        Raises EngineError when a wheel has to be made and there is no engine to do it.
        """
        collection = Collection(self.out)
        found: dict[str, Path] = {}
        failed: dict[object, str] = {}
        for row in rows:
            asked = (row.flash_attn, row.torch, row.python, row.base)
            if self.cancel.is_set():
                break
            if asked in failed:  # minutes of compiling would end in the same way
                self.view.verdict(
                    row.id, "failed", f"it asks for the same wheel as {failed[asked]}", outcome="unexpected"
                )
                continue
            self.view.phase(row.id, "wheel", f"flash-attn {row.flash_attn.version}")
            try:
                wheel = self._known(row) or self._made(row, self.engine)
            except Cancelled:
                break
            except (IngredientError, BuildFailed) as error:
                failed[asked] = row.id
                self.view.verdict(row.id, "failed", self._why(row, error), outcome="unexpected")
                continue
            found[row.id] = collection.add(wheel)
            what = f"{found[row.id].name} from {wheel.source}, sha256 {wheel.sha256}"
            self.view.verdict(row.id, "ready", what, outcome="as-expected")
        return found

    def _known(self, row: Row, engine: Engine | None = None) -> Wheel | None:
        """Return the row's wheel where nothing has to be fetched or built, from --out too if it is just the row's.

        engine: where it holds the base; which image that is decides for a row whose torch comes with it.
        """
        return wheels.lookup(row, wheelhouses=self.wheelhouses, engine=engine) or wheels.made_for(
            row, [self.out], engine=engine
        )

    def _made(self, row: Row, engine: Engine) -> Wheel:
        """Fetch or build the row's wheel. The log of a build is kept beside the wheels."""
        follow = follow_build(self.view, row.id)
        if row.flash_attn.source not in wheels.READY_MADE:
            base.ensure(engine, row.base, self.network, on_event=follow, installs_torch=row.torch != "base")
            if row.torch == "base" and (known := self._known(row, engine)):
                return known
        with tempfile.TemporaryDirectory(prefix="assay-wheel.") as scratch:
            try:
                made = wheels.provide(
                    row,
                    engine=engine,
                    wheelhouses=self.wheelhouses,
                    network=self.network,
                    out=Path(scratch),
                    on_event=follow,
                    cancel=self.cancel,
                )
            finally:
                log = Path(scratch, row.id, LOG)
                if log.is_file():
                    shutil.copyfile(log, self._log(row))
        if made is None:
            raise IngredientError(f"row {row.id} has no flash-attn wheel of its own")
        return made

    def _log(self, row: Row) -> Path:
        return self.out / f"{row.id}.log"

    def _why(self, row: Row, error: AssayError) -> str:
        """Say why there is no wheel: of a failed build, its own words and where the rest of them is."""
        if isinstance(error, BuildFailed):
            return self.network.masked(f"{error}: {cause(error.log) or 'it printed nothing'}; log: {self._log(row)}")
        return self.network.masked(str(error))
