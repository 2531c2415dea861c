"""A row's image: its wheel provided, its Dockerfile composed, and built."""

from __future__ import annotations

from assay import wheels
from assay.compose import Composed, compose, context
from assay.errors import IngredientError
from assay.matrix.row import Row
from assay.progress import follow_build
from assay.surroundings import Surroundings
from assay.wheels import Wheel

COMPOSED_LABEL = "io.assay.composed"
"""The image's own word for the Dockerfile and context that it was built from: their digest."""


def build(
    row: Row, wheel: Wheel | None, composed: Composed, around: Surroundings
) -> tuple[Wheel | None, Composed, str]:
    """Return the wheel, the composition and the id of the built image."""
    if wheel is None:
        wheel = provide(row, around)
        if wheel is not None:
            composed = compose_row(row, wheel, around)
    around.view.phase(row.id, "build")
    image_id = around.engine.build(
        composed.folder,
        dockerfile=composed.dockerfile.name,
        tag=image_tag(row),
        labels={**composed.labels, COMPOSED_LABEL: composed.digest},
        build_args=composed.build_args,
        network="host",
        cancel=around.cancel,
        on_event=follow_build(around.view, row.id),
        log=around.out / row.id / "build.log",
        mask=around.network.masked,
    )
    if context.digest(composed.folder) != composed.digest:
        raise IngredientError(
            f"{composed.folder} changed while its image was being built, so nobody knows what went into it: run again"
        )
    return wheel, composed, image_id


def provide(row: Row, around: Surroundings) -> Wheel | None:
    """Fetch or build the row's wheel."""
    if row.flash_attn.source in wheels.READY_MADE | wheels.COMPILED:
        around.view.phase(row.id, "wheel", f"flash-attn {row.flash_attn.version}")
    return wheels.provide(
        row,
        engine=around.engine,
        wheelhouses=around.wheelhouses,
        network=around.network,
        out=around.out,
        on_event=follow_build(around.view, row.id),
        cancel=around.cancel,
    )


def image_tag(row: Row) -> str:
    """Return the name that a row's image has in the engine."""
    return f"assay/{row.id}:latest"


def compose_row(row: Row, wheel: Wheel | None, around: Surroundings) -> Composed:
    """Write the row's Dockerfile and its context. Raises IngredientError when something that it needs is not there."""
    return compose(
        row,
        out=around.out,
        network=around.network,
        wheel=wheel,
        frontend="buildkit" if around.engine.buildkit else "classic",
        link=around.engine.supports_copy_link,
        files_from=around.folder,
    )
