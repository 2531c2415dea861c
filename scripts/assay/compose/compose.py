"""Renders a row's Dockerfile and writes it with its context."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from assay import paths
from assay import releases as tables
from assay.compose import context, own
from assay.compose.parts import parts_of
from assay.compose.variables import (
    BUILDER_FRAGMENT,
    OWN_FRAGMENT,
    Frontend,
    dockerfile_string,
    fragments,
    variables,
)
from assay.files import write_atomically
from assay.fragment import OWN
from assay.matrix.row import Row
from assay.network import NetworkSettings
from assay.wheels import Wheel, lean


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A Dockerfile and the folder to build it from.

    folder: the build context. digest: sha256 over the Dockerfile and the context, without this machine's network
    settings. parts: the parts of the image in order. labels: what the Dockerfile's last part says of the image.
    build_args: the names that the bases have in an engine where `base.ensure` has been; without them the Dockerfile
    builds on the images that it names.
    """

    folder: Path
    dockerfile: Path
    digest: str
    parts: tuple[str, ...]
    labels: Mapping[str, str]
    build_args: Mapping[str, str]


def compose(
    row: Row,
    *,
    out: Path,
    network: NetworkSettings,
    wheel: Wheel | None,
    frontend: Frontend = "buildkit",
    link: bool = False,
    stop_at: str | None = None,
    files_from: Path = Path(),
) -> Composed:
    """Write `OUT/<row>/Dockerfile` and everything that it names.

    wheel: the flash-attn wheel to install; None where the row has none, or where a stage is to build it.
    frontend: `classic` for engines without BuildKit: no `RUN --mount`; what steps need is copied into stages from which
        only their results go on.
    link: the engine knows `COPY --link` (23 or newer); used for rows on a base of their own.
    stop_at: `flash-attn-wheel` for a Dockerfile that ends with the stage that builds the wheel.
    files_from: folder that the paths of the row's own files are relative to.

    Raises IngredientError when something that the row needs is not there, MatrixError for an unknown release.
    """
    docker = paths.docker_dir()
    releases = tables.load()
    chosen = fragments(row, wheel=wheel, stop_at=stop_at)
    mounts = frontend == "buildkit"
    pins = own.requirements(row, context.python_locks(row, releases), files_from) if stop_at is None else ()
    instructions = (
        own.instructions(row, files_from, mounts=mounts, heredocs=mounts and link) if OWN_FRAGMENT in chosen else ""
    )
    known = variables(
        row,
        releases,
        wheel=wheel,
        frontend=frontend,
        link=link,
        runtime_files=context.has_runtime_files(row, docker),
        requirements=bool(pins),
        own=instructions,
    )
    recipe = lean.recipe(row) if BUILDER_FRAGMENT in chosen else None
    text = render(docker, {**known, "fragments": chosen, "recipe": recipe})
    folder = out / row.id
    context.write_context(
        row,
        folder,
        docker=docker,
        releases=releases,
        network=network,
        wheel=wheel,
        fragments=chosen,
        files_from=files_from,
        pins=pins,
    )
    dockerfile = folder / "Dockerfile"
    write_atomically(dockerfile, text)
    return Composed(
        folder=folder,
        dockerfile=dockerfile,
        digest=context.digest(folder),
        parts=parts_of(text),
        labels=known["labels"],
        build_args=known["build_args"],
    )


def render(docker: Path, known: Mapping[str, Any]) -> str:
    """Return the Dockerfile that the fragments give with these variables; an unknown variable is an error."""
    environment = Environment(
        loader=FileSystemLoader(docker),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is a Dockerfile
    )
    environment.filters["dockerfile_string"] = dockerfile_string
    text = environment.get_template("Dockerfile.j2").render(known)
    # What the row wrote itself stays as it is: blank lines mean something in a heredoc.
    mine = f"# part: {OWN}\n{known['own']}\n" if known["own"] else ""
    before, _, after = text.partition(mine) if mine else (text, "", "")
    return (_tidy(before) + mine + _tidy(after)).strip() + "\n"


def _tidy(text: str) -> str:
    """Leave one blank line where fragments that had nothing to say left several."""
    return re.sub(r"\n{3,}", "\n\n", text)
