"""Runs the builder stage of a row in the engine and takes the wheel out of it."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from assay import base
from assay.compose.compose import compose
from assay.compose.variables import BUILDER_STAGE
from assay.engine import Engine
from assay.engine.events import OnEvent
from assay.errors import IngredientError
from assay.matrix.row import Row
from assay.network import NetworkSettings
from assay.wheels import wheel as wheel_file
from assay.wheels.lean import Recipe
from assay.wheels.wheel import Wheel
from assay.wheels.wheelhouse import Store, wanted_kernels

FOLDER_IN_STAGE = "/wheels"


def build(
    row: Row,
    recipe: Recipe,
    key: str,
    store: Store,
    *,
    engine: Engine,
    network: NetworkSettings,
    out: Path,
    on_event: OnEvent,
    cancel: threading.Event | None,
) -> Wheel:
    """Build the wheel of a recipe, prove that it holds what was asked for, and keep it in the store under `key`.

    Raises BuildFailed when a step of the builder stage fails, IngredientError when what comes out is not what was
    asked for.
    """
    composed = compose(
        row,
        out=out,
        network=network,
        wheel=None,
        frontend="buildkit" if engine.buildkit else "classic",
        link=engine.supports_copy_link,
        stop_at=BUILDER_STAGE,
    )
    image = engine.build(
        composed.folder,
        dockerfile=composed.dockerfile.name,
        tag=f"assay/{BUILDER_STAGE}:{key[:12]}",
        target=BUILDER_STAGE,
        labels={},
        build_args=composed.build_args,
        network="host",
        cancel=cancel,
        on_event=on_event,
        log=out / row.id / "flash-attn.log",
        mask=network.masked,
    )
    _same_base(engine, recipe)
    store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".extract.") as scratch:
        engine.copy_out(image, FOLDER_IN_STAGE, Path(scratch))
        found = sorted(Path(scratch).rglob("*.whl"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise IngredientError(f"the builder stage of {row.id} left {names} in {FOLDER_IN_STAGE}, not one wheel")
        wheel = wheel_file.read(found[0], source=recipe.source)
        verify(wheel, recipe, row)
        return store.add(key, found[0], source=recipe.source, record=_record(wheel, recipe))


def _same_base(engine: Engine, recipe: Recipe) -> None:
    """Raise IngredientError where the base that brings torch is another one than before the build."""
    if recipe.base_digest is None or "@" in recipe.base:
        return
    now = base.held(engine, recipe.base)
    if now is None or now.digest != recipe.base_digest:
        raise IngredientError(
            f"the name {recipe.base} was given to another image while a wheel was being compiled against its torch: "
            "run again"
        )


def verify(wheel: Wheel, recipe: Recipe, row: Row) -> None:
    """Raise IngredientError unless the wheel holds exactly what the recipe says, by its machine code and its names."""
    wanted = wanted_kernels(row.flash_attn) if recipe.compiler else frozenset()
    held = wheel.extension.kernels if wheel.extension else frozenset()
    refused = wheel.extension.refuses if wheel.extension else frozenset()
    problems = [
        *([f"its version is {wheel.version}, not {recipe.version}"] if wheel.version != recipe.version else []),
        *(f"it lacks the kernel {kernel}" for kernel in sorted(wanted - held)),
        *(f"it holds the kernel {kernel}, which nobody asked for" for kernel in sorted(held - wanted)),
        *(
            f"its kernels lack {feature} and its API does not refuse it"
            for feature in recipe.left_out
            if not any(said.startswith(feature) for said in refused)
        ),
        *([f"it has machine code for {wheel.archs}, not {recipe.archs}"] if wheel.archs != recipe.archs else []),
    ]
    if problems:
        raise IngredientError(
            f"{wheel.path.name}, just built, is not what row {row.id} asks for: {'; '.join(problems)}. It was not kept"
        )


def _record(wheel: Wheel, recipe: Recipe) -> dict[str, object]:
    record = dict(recipe.record())
    gcc = wheel.extension.gcc if wheel.extension else None
    if record["compiler"] and gcc:
        record["compiler"] = f"{record['compiler']}, g++ {gcc}"
    held = sorted(wheel.extension.kernels) if wheel.extension else []
    record["kernels"] = [str(kernel) for kernel in held]
    return record
