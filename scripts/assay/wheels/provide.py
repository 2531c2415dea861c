"""Getting the flash-attn wheel of a row, by the first way that leads to one: wheelhouse, release, compile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay import base, paths, releases
from assay.engine.events import BuildEvent, OnEvent
from assay.errors import Cancelled, IngredientError
from assay.files import write_json
from assay.matrix.row import Row
from assay.wheels import lean, release
from assay.wheels import wheel as wheel_file
from assay.wheels.wheel import Wheel
from assay.wheels.wheelhouse import Choice, Store, Target, choose

if TYPE_CHECKING:
    from assay.engine import Engine
    from assay.network import NetworkSettings

STEP = "flash-attn wheel"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every way of getting a wheel is given.

    engine, network: None where nothing may be built or fetched. base_digest: see `_base_digest`.
    """

    row: Row
    wheelhouses: tuple[Path, ...]
    store: Store
    out: Path
    on_event: OnEvent
    base_digest: str | None = None
    engine: Engine | None = None
    network: NetworkSettings | None = None
    cancel: threading.Event | None = None

    def say(self, line: str) -> None:
        """Tell what was decided, as a line of the step."""
        self.on_event(BuildEvent(step=STEP, status="progress", line=line))


def provide(
    row: Row,
    *,
    engine: Engine,
    wheelhouses: Sequence[Path],
    network: NetworkSettings,
    out: Path,
    on_event: OnEvent,
    cancel: threading.Event | None = None,
) -> Wheel | None:
    """Return the wheel of a row, fetched or built where it must be; None when the row has none (`none`, `base`).

    out: the run's folder; the builder stage's context and log go to out/ROW. The engine has to hold the base of a row
    whose torch comes with it, for a wheel to be compiled.

    Raises IngredientError when no way leads to a wheel that fits, with why each one was passed over, and BuildFailed
    when the builder stage fails.
    """
    return _first(
        Request(
            row=row,
            wheelhouses=tuple(wheelhouses),
            store=Store(paths.state_dir() / "wheelhouse"),
            out=out,
            on_event=on_event,
            base_digest=_base_digest(row, engine),
            engine=engine,
            network=network,
            cancel=cancel,
        )
    )


def lookup(row: Row, *, wheelhouses: Sequence[Path], engine: Engine | None = None) -> Wheel | None:
    """Return the wheel that `provide` would return, if it is there already: nothing is fetched, nothing built.

    engine: None where none is asked; then no wheel counts as made for a base that brings torch, unless the row names
    that base by its digest.
    """
    request = Request(
        row=row,
        wheelhouses=tuple(wheelhouses),
        store=Store(paths.state_dir() / "wheelhouse"),
        out=Path(),
        on_event=lambda _event: None,
        base_digest=_base_digest(row, engine),
    )
    for way in WAYS[row.flash_attn.source]:
        wheel, _why = way(request)
        if wheel is not None:
            return wheel
        if way is _from_release and row.flash_attn.url:
            return None  # `provide` would fetch it before it looked any further
    return None


def made_for(row: Row, folders: Sequence[Path], *, engine: Engine | None = None) -> Wheel | None:
    """Return the wheel in these folders that was made by exactly the row's recipe, as the record beside it says.

    That is what a compile of the row would give, whichever machine did it. engine: as for `lookup`.
    """
    return _made_for(row, folders, _base_digest(row, engine))


def _made_for(row: Row, folders: Sequence[Path], base_digest: str | None) -> Wheel | None:
    key = _recipe_key(row, base_digest)
    found = choose(folders, target(row, base_digest), key).wheel if key else None
    return found if found is not None and found.record.get("key") == key else None


def _base_digest(row: Row, engine: Engine | None) -> str | None:
    """Return which image a base that brings torch is; None where nobody knows yet, or where assay installs torch."""
    if row.torch != "base":
        return None
    _, named, digest = row.base.partition("@")
    if named:
        return digest
    held = base.held(engine, row.base) if engine is not None else None
    return held.digest if held else None


def _recipe_key(row: Row, base_digest: str | None) -> str | None:
    try:
        return lean.recipe(row, base_digest).key()
    except IngredientError:
        return None  # a row that cannot be compiled: no wheel can have been made by its recipe


def target(row: Row, base_digest: str | None = None) -> Target:
    """Return what a wheel of this row must fit.

    Of a torch that the base image brings nothing is known here but the image: base_digest, None where not even that is.
    """
    python = f"cp{row.python.replace('.', '')}"
    if row.torch == "base":
        return Target(python=python, flash_attn=row.flash_attn, base=row.base, base_digest=base_digest)
    build = releases.load().torch(row.torch)
    return Target(
        python=python,
        flash_attn=row.flash_attn,
        torch=build.version,
        cuda_major=int(build.cuda.partition(".")[0]),
        cxx11_abi=build.cxx11_abi,
    )


Answer = tuple[Wheel | None, tuple[str, ...]]
"""The wheel, or why there is none this way."""


def _first(request: Request) -> Wheel | None:
    ways = WAYS[request.row.flash_attn.source]
    reasons: list[str] = []
    for way in ways:
        try:
            wheel, why = way(request)
        except OSError as error:  # disk full, folder not writable
            raise IngredientError(
                f"row {request.row.id}: cannot keep the wheel in {request.store.root}: {error}. "
                "Make room there, or set ASSAY_STATE to another folder"
            ) from error
        if wheel is not None:
            request.say(f"{wheel.path.name} from {wheel.source}, sha256 {wheel.sha256}")
            return wheel
        for reason in why:
            request.say(f"passed over: {reason}")
        reasons += why
    if not ways:
        return None
    raise IngredientError(
        f"row {request.row.id}: no flash-attn {request.row.flash_attn.version} wheel fits it:\n"
        + "\n".join(f"  {reason}" for reason in reasons)
        + '\nPut one that fits into a folder and pass it with --wheelhouse, or set flash-attn.source = "auto"'
    )


def _from_wheelhouse(request: Request) -> Answer:
    row, digest = request.row, request.base_digest
    choice: Choice = choose(request.wheelhouses, target(row, digest), _recipe_key(row, digest))
    if choice.wheel is None and not choice.passed_over:
        where = ", ".join(str(folder) for folder in request.wheelhouses) or "no folder was given with --wheelhouse"
        return None, (f"wheelhouse: no flash-attn wheel there ({where})",)
    return choice.wheel, choice.passed_over


def _from_release(request: Request) -> Answer:
    """Fetch the release wheel that the row names. It is taken as named: whether it works is for the checks to say."""
    asked = request.row.flash_attn
    if asked.url is None or asked.sha256 is None:
        return None, ("release: flash-attn.url and flash-attn.sha256 are not both given",)
    key, path = asked.sha256, request.store.root / asked.sha256 / release.file_name(asked.url)
    kept = request.store.get(key, source="release")
    if kept is not None and kept.sha256 != asked.sha256:
        kept = None  # changed on the disk, or a run was killed before it noted the hash: `download` looks, and mends it
    if kept is not None or request.engine is None:
        return kept, ()
    ca_bundle = request.network.ca_bundle if request.network else None
    started = time.monotonic()

    def on_progress(current: int, total: int) -> None:
        if request.cancel is not None and request.cancel.is_set():
            raise Cancelled("cancelled while a wheel was being downloaded")
        seconds = time.monotonic() - started
        request.on_event(
            BuildEvent(
                step=STEP, status="progress", seconds=seconds, item=path.name, current_bytes=current, total_bytes=total
            )
        )

    with request.store.making(key, on_wait=_waiting(request), cancel=request.cancel):
        release.download(asked.url, asked.sha256, path, on_progress=on_progress, ca_bundle=ca_bundle)
    write_json(wheel_file.record_path(path), {"sha256": asked.sha256, "url": asked.url})
    return wheel_file.read(path, source="release"), ()


def _from_compile(request: Request) -> Answer:
    """Return the wheel of the row's recipe, built in the engine unless it was built before, here or elsewhere."""
    recipe = lean.recipe(request.row, request.base_digest)
    key = recipe.key()
    if key is None:
        return None, (f"compile: the engine does not hold {recipe.base}, whose torch it would be compiled against",)
    kept = _made_for(request.row, request.wheelhouses, request.base_digest) or request.store.get(
        key, source=recipe.source
    )
    if kept is not None or request.engine is None or request.network is None:
        return kept, ()
    from assay.wheels import builder  # only here: compose imports the wheel's type from this package

    with request.store.making(key, on_wait=_waiting(request), cancel=request.cancel):
        kept = request.store.get(key, source=recipe.source)  # whoever held the lock may have made it
        if kept is not None:
            return kept, ()
        built = builder.build(
            request.row,
            recipe,
            key,
            request.store,
            engine=request.engine,
            network=request.network,
            out=request.out,
            on_event=request.on_event,
            cancel=request.cancel,
        )
    return replace(built, source=recipe.source), ()


def _waiting(request: Request) -> Callable[[], None]:
    return lambda: request.say("another row or run is making this wheel; waiting for it")


Way = Callable[[Request], Answer]

WAYS: dict[str, tuple[Way, ...]] = {
    "auto": (_from_wheelhouse, _from_release, _from_compile),
    "wheelhouse": (_from_wheelhouse,),
    "release": (_from_release,),
    "compile": (_from_compile,),
    "skip-cuda": (_from_compile,),
    "base": (),
    "none": (),
}

COMPILED = frozenset(source for source, ways in WAYS.items() if _from_compile in ways)
"""Sources whose wheel a stage of the Dockerfile can build where there is none."""

READY_MADE = frozenset(source for source, ways in WAYS.items() if ways) - COMPILED
"""Sources whose wheel has to be there before a Dockerfile can be composed around it: no stage of it builds one."""
