"""What the Dockerfile's fragments are told: pure functions of row, releases and wheel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Literal

from assay import base as bases
from assay.errors import IngredientError
from assay.matrix.row import Row
from assay.pinned import PLATFORM
from assay.releases import Releases
from assay.wheels import COMPILED, READY_MADE, Wheel, lean

Frontend = Literal["buildkit", "classic"]

BUILDER_STAGE = "flash-attn-wheel"
"""Stage that compiles flash-attn and leaves the wheel in `/wheels`."""

BUILDER_FRAGMENT = lean.TEMPLATE

FILES_FRAGMENT = "90-files.dockerfile.j2"

OWN_FRAGMENT = "92-own.dockerfile.j2"

WHEEL_LABEL = "io.assay.flash-attn.sha256"
"""The image's own word for the flash-attn wheel that it was made of."""

# Where things are, in build steps (/run) and in the image.
PATHS: Mapping[str, str] = MappingProxyType(
    {
        "network": "/run/network",
        "tools": "/run/tools",
        "locks": "/run/locks",
        "wheels": "/run/wheels",
        "parts": "/run/parts",
        "venv": "/opt/venv",
        "home": "/opt/newbie",
    }
)

# The fragments in the order in which they are stacked: what more rows share comes first.
_UNTIL_TORCH = (
    "10-base.dockerfile.j2",
    "20-python.dockerfile.j2",
    "30-tools.dockerfile.j2",
    "40-torch.dockerfile.j2",
)
_AFTER_TORCH = (
    "60-runtime-packages.dockerfile.j2",
    "flash-attn.install.dockerfile.j2",
    "70-runtime-files.dockerfile.j2",
    "75-requirements.dockerfile.j2",
    "80-toolkit.dockerfile.j2",
    FILES_FRAGMENT,
    OWN_FRAGMENT,
    "95-labels.dockerfile.j2",
)

_ABSENT = frozenset({"base", "none"})


def fragments(row: Row, *, wheel: Wheel | None, stop_at: str | None) -> tuple[str, ...]:
    """Return the fragments of a row's Dockerfile.

    stop_at: the builder stage's name for a Dockerfile that ends there.
    Raises IngredientError when the row asks for a ready wheel and there is none, or `stop_at` names no such stage.
    """
    if stop_at not in (None, BUILDER_STAGE):
        raise IngredientError(f"a Dockerfile can end at {BUILDER_STAGE}, not at {stop_at!r}")
    source = row.flash_attn.source
    if stop_at is None and wheel is None and source in READY_MADE:
        raise IngredientError(
            f"row {row.id}: flash-attn comes from a {source} and no wheel was found there; "
            'name a folder with --wheelhouse, or set flash-attn.source = "auto"'
        )
    builds = stop_at is not None or (wheel is None and source in COMPILED)
    builder = (BUILDER_FRAGMENT,) if builds else ()
    return _UNTIL_TORCH + builder + (() if stop_at else _AFTER_TORCH)


def variables(
    row: Row,
    releases: Releases,
    *,
    wheel: Wheel | None,
    frontend: Frontend,
    link: bool,
    runtime_files: bool,
    requirements: bool,
    own: str,
) -> dict[str, Any]:
    """Return the variables of the fragments.

    requirements: the row brings Python packages that its locks do not hold. own: its own instructions.
    mounts: `RUN --mount` is there. copied: torch and the other large parts are made in stages of their own and copied
    into the image. installer: the base on which they are made then, where it is not the row's own. build_args: what
    assay passes to the build.
    Raises IngredientError when this frontend cannot do what the row asks for.
    """
    mounts = frontend == "buildkit"
    # Linked layers have one digest whatever the base: torch is installed once for all bases, and a registry (or an
    # engine that keeps images in containerd) holds it once. Rows on the common base share layers anyway, and a copy
    # of torch's 5 GB would cost them more than it saves.
    linked = link and mounts and row.base not in bases.BOOTSTRAPPED and row.torch != "base"
    copied = linked or not mounts
    installer = bases.DEFAULT if linked else None
    if requirements and row.torch == "base" and copied:
        raise IngredientError(
            f"row {row.id}: requirements go straight into the Python of a base that brings torch; that needs BuildKit, "
            "so use an engine that has it"
        )
    return {
        "row": row,
        "release": releases.cuda(row.cuda),
        "torch": None if row.torch == "base" else releases.torch(row.torch),
        "wheel": wheel,
        "paths": PATHS,
        "mounts": mounts,
        "copied": copied,
        "link": " --link" if linked else "",
        "installer": installer,
        "build_args": _build_args({"BASE": row.base, **({"INSTALLER_BASE": installer} if installer else {})}),
        "bootstrapped": row.base in bases.BOOTSTRAPPED,
        "flash_attn_step": row.flash_attn.source not in _ABSENT,
        "runtime_files": runtime_files,
        "requirements": requirements,
        "own": own,
        # By its path: what is only a name, uv takes for that of a virtual environment's.
        "python": '"$(command -v python)"' if row.torch == "base" else f"{PATHS['venv']}/bin/python",
        "tools_python": "python" if row.torch == "base" and not installer else _python(row, installer),
        "uv_flags": _uv_flags(row, copied=copied, installer=installer),
        "toolkit_root": f"{PATHS['parts'] if copied else ''}/usr/local",
        "apt": f"sh {PATHS['network']}/run.sh apt-get" if mounts else "apt-get",
        "files": [(target, f"files/{context_name(i, s)}") for i, (target, s) in enumerate(row.files)],
        "labels": labels(row, wheel),
    }


def _build_args(named: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments for the bases that have another name in the engine than in the Dockerfile."""
    return {name: bases.reference(ref) for name, ref in named.items() if bases.reference(ref) != ref}


def labels(row: Row, wheel: Wheel | None) -> dict[str, str]:
    """Return the labels that say what went into the image."""
    said = {
        "io.assay.row": row.id,
        "io.assay.base": row.base,
        "io.assay.cuda": row.cuda,
        "io.assay.toolkit": row.toolkit,
        "io.assay.library-path": row.library_path,
        "io.assay.python": row.python,
        "io.assay.torch": row.torch,
        "io.assay.flash-attn.source": wheel.source if wheel else row.flash_attn.source,
        "io.assay.runtime": row.runtime,
        "org.opencontainers.image.title": row.id,
        "org.opencontainers.image.description": row.what,
    }
    if wheel:
        said["io.assay.flash-attn.version"] = wheel.version
        said[WHEEL_LABEL] = wheel.sha256
    elif row.flash_attn.source not in _ABSENT:
        said["io.assay.flash-attn.version"] = row.flash_attn.version
    return {name: value for name, value in sorted(said.items()) if value}


def context_name(number: int, source: str) -> str:
    """Return the name that an overlay file has in the build context: unique, and still readable."""
    return f"{number:02d}-{PurePosixPath(source).name}"


def dockerfile_string(value: str) -> str:
    r"""Return a value in the double quotes of a Dockerfile, where `\`, `"` and `$` would mean something.

    >>> print(dockerfile_string('a "b" $c'))
    "a \"b\" \$c"

    Raises IngredientError for a line break: a Dockerfile's ENV and LABEL cannot hold one.
    """
    if re.search(r"[\r\n]", value):
        raise IngredientError(f"a value of `env` or `what` holds a line break: {value!r}")
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def _python(row: Row, installer: str | None) -> str:
    """Return the interpreter that runs the installer: the row's own, or the one of the installer's base."""
    return "python3" if installer else f"python{row.python}"


def _uv_flags(row: Row, *, copied: bool, installer: str | None) -> str:
    """Return where packages go and what they must suit, as uv's options."""
    flags = []
    if copied:
        flags.append(f"--prefix {PATHS['parts']}{PATHS['venv']}")
    elif row.torch == "base":
        flags.append("--break-system-packages")
    if installer:
        # Bytecode of the installer's Python would mean nothing to the image's.
        flags.append(f"--python-version {row.python} --python-platform {PLATFORM}")
    else:
        # 206 MB, and `import torch` takes 1.2 s of CPU instead of 3.1 s: on a read-only root nothing would be kept.
        flags.append("--compile-bytecode")
    return " ".join(flags)
