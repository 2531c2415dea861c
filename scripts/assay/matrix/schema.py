"""The matrix file's shape: which keys there are, of which type. The JSON schema for editors is made from these types.

Every table may be partial, as defaults, axes and rows are laid over each other; `assay.matrix.rules` says what the
whole must mean. `assay.matrix.row.Row` is what they become.

`python -m assay.matrix > schema/matrix.schema.json` writes the schema anew.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model

from assay.matrix.row import (
    Dtype,
    Expectation,
    FlashAttn,
    FlashAttnSource,
    LibraryPath,
    Row,
    ToolkitSource,
)

# As an image's name may have it, of which it is the last part: separators stand between letters and digits.
ID = r"^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$"
ID_LENGTH = 63
# [HOST[:PORT]/]NAME[/NAME...][:TAG][@DIGEST], as `docker pull` takes it.
IMAGE = (
    r"^([A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)
PYTHON = r"^3\.\d{1,2}$"
VERSION = r"^\d[A-Za-z0-9.!+_-]{0,62}$"
ARCH = r"^\d{2,3}$"
SHA256 = r"^[0-9a-f]{64}$"
URL = r"^https://\S+\.whl$"
TAG = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
IMAGE_PATH = r"^/[^\s:]+$"
PLUG_IN = r"^[A-Za-z0-9_.-]+/[^\s\\]+$"
LINE = r"^[^\r\n\x00]*$"

# What a pattern means, for the message to somebody who broke it.
HINTS = {
    ID: f"use lower-case letters and digits, at most {ID_LENGTH} in all, and '.', '_', '__' or '-' only between them",
    IMAGE: "give an image reference such as 'debian:bookworm'; a digest is '@sha256:' and 64 hexadecimal digits",
    PYTHON: "give major and minor version, such as '3.11'",
    VERSION: "give a version of the package index, such as '2.8.3'",
    ARCH: "write an architecture as CUDA does, such as '80' or '120'",
    SHA256: "give 64 lower-case hexadecimal digits",
    URL: "give the https address of a wheel",
    TAG: "an image tag has at most 128 letters, digits, '_', '.' and '-', and does not begin with '.' or '-'",
    ENV_NAME: "an environment variable's name has letters, digits and '_', and does not begin with a digit",
    IMAGE_PATH: "give an absolute path in the image",
    PLUG_IN: "give a package's folder and what lies there, such as 'numba/np/ufunc/tbbpool.*.so'",
    LINE: "a Dockerfile cannot hold a line break in a value; write it on one line",
}


def _text(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=pattern)


Id = Annotated[str, StringConstraints(pattern=ID, max_length=ID_LENGTH)]
Image = Annotated[str, _text(IMAGE)]
Python = Annotated[str, _text(PYTHON)]
Version = Annotated[str, _text(VERSION)]
Arch = Annotated[str, _text(ARCH)]
Sha256 = Annotated[str, _text(SHA256)]
Url = Annotated[str, _text(URL)]
Tag = Annotated[str, _text(TAG)]
EnvName = Annotated[str, _text(ENV_NAME)]
ImagePath = Annotated[str, _text(IMAGE_PATH)]
PlugIn = Annotated[str, _text(PLUG_IN)]
Line = Annotated[str, _text(LINE)]
Names = Annotated[list[str], Field(min_length=1)]
HeadDim = Literal[32, 64, 96, 128, 192, 256]  # file names of flash-attn's kernels: flash_fwd_hdim<N>_*


def is_id(text: str) -> bool:
    """Say whether a text can be a row's id."""
    return len(text) <= ID_LENGTH and re.fullmatch(ID, text) is not None


def _forget_null(schema: dict[str, Any]) -> None:
    """TOML has no null: a key that may be absent must not look as if it could be null."""
    schema.pop("default", None)
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    schema.update(*kinds)


class Table(BaseModel):
    """A table of the file: kebab-case keys, exact types, no key that nobody reads."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        populate_by_name=False,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class ReasonTable(Table):
    """One root failure that a `reject` row must show."""

    check: str = Field(description="Id of a check (`torch.import`), or `build.<part>` for a build that fails.")
    matches: str = Field(description="Regular expression (Python's), searched in the finding's evidence.")


class FlashAttnTable(Table):
    """Which flash-attn goes into the image, and where it comes from."""

    version: Version = Field(FlashAttn.version, description="Version in the package index.")
    source: FlashAttnSource = Field(
        FlashAttn.source,
        description="`auto` tries the wheelhouse, then the release wheel (where `url` and `sha256` are given), then "
        "`compile`; `skip-cuda` builds the package without its kernels; `base`: the base image brings it; "
        "`none` leaves it out.",
    )
    nvcc: str = Field(FlashAttn.nvcc, description="Compiler for `compile`, as named in releases/cuda.toml: `12.4`.")
    head_dims: list[HeadDim] = Field(
        [64, 96, 128], min_length=1, description="Head dimensions whose kernels `compile` builds."
    )
    dtypes: list[Dtype] = Field(
        list(FlashAttn.dtypes), min_length=1, description="Element types whose kernels `compile` builds."
    )
    archs: list[Arch] = Field(
        list(FlashAttn.archs), min_length=1, description="Architectures that `compile` builds for: `80`, `90`."
    )
    url: Url | None = Field(None, description="Address of the release wheel.", json_schema_extra=_forget_null)
    sha256: Sha256 | None = Field(None, description="sha256 of the release wheel.", json_schema_extra=_forget_null)


class Settings(Table):
    """What a row is made of; each key may stand in `[defaults]`, in a row, or vary as an axis."""

    expect: Expectation | None = Field(
        None, description="What must come out: `certify`, or `reject` with `because`.", json_schema_extra=_forget_null
    )
    base: Image = Field(
        Row.base,
        description="`debian:bookworm` (bootstrapped from the Debian index where the engine lacks it), or any image.",
    )
    cuda: str = Field(Row.cuda, description="CUDA release, by name or alias in releases/cuda.toml: `12.1.105`.")
    toolkit: ToolkitSource = Field(
        Row.toolkit,
        description="Where /usr/local/cuda-X.Y comes from: NVIDIA's `wheels`, the `base` image, `debian`'s package, "
        "or `none`.",
    )
    library_path: LibraryPath = Field(
        Row.library_path, description="`toolkit` puts the toolkit's lib64 first on LD_LIBRARY_PATH."
    )
    torch: str = Field(
        Row.torch, description="Version with local part, as in releases/torch.toml; `base`: the base image brings it."
    )
    python: Python = Field(Row.python, description="The interpreter that gets torch.")
    flash_attn: FlashAttnTable = Field(
        FlashAttnTable(), description="Which flash-attn, and where it comes from.", json_schema_extra=_forget_null
    )
    runtime: Literal["newbie", "none"] = Field(
        Row.runtime, description="`newbie` bakes in the drawing pipeline and test.py; `none` leaves them out."
    )
    gpus: Names = Field(
        list(Row.gpus),
        description="GPUs that the image is meant for, as in releases/gpus.toml: of one compute capability, where the "
        "row is to be published at level `gpu`.",
    )
    runner: Names = Field(list(Row.runner), description="Labels of the GitHub Actions runner that certifies the row.")
    env: dict[EnvName, Line] = Field({}, description="Environment variables of the image beyond what its parts set.")
    files: dict[ImagePath, str] = Field(
        {}, description="Files laid over the finished image: path in the image = path beside the matrix file."
    )
    requirements: str | None = Field(
        None,
        description="File beside the matrix file with Python packages to add, each pinned by `==` and "
        "`--hash=sha256:`; an empty text takes back what the defaults name.",
        json_schema_extra=_forget_null,
    )
    dockerfile: str | None = Field(
        None,
        description="File beside the matrix file with Dockerfile instructions that end the image, without FROM; an "
        "empty text takes back what the defaults name.",
        json_schema_extra=_forget_null,
    )
    context: str | None = Field(
        None,
        description="Folder beside the matrix file from which `dockerfile` copies, as `own/`: `COPY own/app.py /app/`.",
        json_schema_extra=_forget_null,
    )
    optional_libraries: list[PlugIn] = Field(
        [],
        description="Files of packages that may be unloadable, as nothing loads them: paths in site-packages, with "
        "wildcards after the package's name: `numba/np/ufunc/tbbpool.*.so`.",
    )
    tags: list[Tag] = Field([], description="Moving tags that follow the row when it is published.")
    required_level: Literal["image", "gpu"] | None = Field(
        None,
        description="Level of the certificate that publishing asks for; `publish.level` unless given.",
        json_schema_extra=_forget_null,
    )


def _as_list(value: Any) -> Any:
    """One reason may stand alone."""
    return [value] if isinstance(value, dict) else value


class RowFields(Settings):
    """A row, or what `axes.include` adds to one."""

    id: Id | None = Field(None, description="Names the row's folder in the output.", json_schema_extra=_forget_null)
    what: Line = Field("", description="One line for people.")
    because: Annotated[
        list[ReasonTable], BeforeValidator(_as_list, json_schema_input_type=ReasonTable | list[ReasonTable])
    ] = Field([], description="The root failures of a `reject` row: all of them, no more and no fewer.")


class RowTable(RowFields):
    """One combination, and what is expected of it."""

    id: Id = Field(description="Names the row's folder in the output and its image.")


class PublishTable(Table):
    """What publishing asks for."""

    level: Literal["image", "gpu"] = Field("gpu", description="Level of the certificate that a row needs.")
    prefix: str = Field(
        "exp0.1",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,31}$",
        description="First part of the full tag: the version of what the images run.",
    )


def _without_none(kind: Any) -> Any:
    """Return what is left of `X | None`."""
    left = [argument for argument in get_args(kind) if argument is not type(None)]
    return left[0] if type(None) in get_args(kind) else kind


def _axes_table() -> type[Table]:
    """Return the type of `[axes]`: lists of values for keys of `Settings`, and what GitHub Actions has beside them."""
    types = get_type_hints(Settings, include_extras=True)
    axes: dict[str, Any] = {
        name: (
            list[_without_none(types[name])],  # type: ignore[misc]
            Field([], min_length=1, description=f"Values of `{field.alias}`.", json_schema_extra=_forget_null),
        )
        for name, field in Settings.model_fields.items()
    }
    return create_model(
        "AxesTable",
        __base__=Table,
        __doc__="Keys with lists of values: every combination is a row, as in `strategy.matrix` of GitHub Actions.",
        id=(
            str,
            Field(
                "",
                description="Template of the rows' ids: `cu{cuda}-py{python}`; keys in braces, `{flash-attn.version}` "
                "too. Without it the values joined by `-`.",
            ),
        ),
        include=(
            list[RowFields],
            Field([], description="Adds keys to the combinations that it does not contradict, else a row of its own."),
        ),
        exclude=(list[Settings], Field([], description="Leaves out the combinations that have all these values.")),
        **axes,
    )


AxesTable = _axes_table()


class MatrixFile(Table):
    """The combinations of base, CUDA toolkit, torch and flash-attn to build, and what is expected of each."""

    defaults: Settings = Field(
        Settings(), description="Values for every row that does not set its own.", json_schema_extra=_forget_null
    )
    axes: AxesTable = Field(  # type: ignore[valid-type]
        AxesTable(), description="Rows as combinations of values.", json_schema_extra=_forget_null
    )
    row: list[RowTable] = Field([], description="Rows written out.")
    publish: PublishTable = Field(
        PublishTable(), description="What publishing asks for.", json_schema_extra=_forget_null
    )


# The table that a key of the file opens, for the nearest valid key in error messages.
TABLES: dict[str, type[Table]] = {
    "defaults": Settings,
    "axes": AxesTable,
    "include": RowFields,
    "exclude": Settings,
    "row": RowTable,
    "flash-attn": FlashAttnTable,
    "because": ReasonTable,
    "publish": PublishTable,
}


def keys(table: type[Table]) -> list[str]:
    """Return the keys that a table may have, as the file writes them."""
    return [field.alias or name for name, field in table.model_fields.items()]


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the matrix file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **MatrixFile.model_json_schema(by_alias=True),
        "title": "assay matrix",
    }


def schema_text() -> str:
    """Return the JSON schema as `schema/matrix.schema.json` holds it."""
    return json.dumps(json_schema(), indent=2) + "\n"
