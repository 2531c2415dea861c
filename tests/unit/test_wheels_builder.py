"""A wheel that was just built is kept only when it is exactly what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from wheel_factory import REFUSALS, fatbin, kernel_names, shared_object, wheel

from assay.errors import IngredientError
from assay.matrix.row import FlashAttn, Row
from assay.network import NetworkSettings
from assay.wheels import builder, lean
from assay.wheels import wheel as wheel_file
from assay.wheels.wheelhouse import Store

ROW = Row(
    id="lean",
    expect="certify",
    flash_attn=FlashAttn(source="compile", head_dims=(96,), dtypes=("bf16",), archs=("80",)),
)
RECIPE = lean.recipe(ROW)
NAMES = kernel_names([96], ["bf16"]) + REFUSALS


def verify(folder: Path, library: bytes, version: str = RECIPE.version) -> None:
    """Verify a wheel with this shared object against the recipe."""
    made = wheel(folder, version=version, library=library)
    builder.verify(wheel_file.read(made, source="compile"), RECIPE, ROW)


def test_a_wheel_with_exactly_the_kernels_asked_for_is_right(tmp_path: Path) -> None:
    verify(tmp_path, shared_object(names=NAMES))


@pytest.mark.parametrize(
    ("library", "version", "problem"),
    [
        (shared_object(names=NAMES), "2.8.3", "its version is 2.8.3, not 2.8.3.assay.hd96.bf16.sm80.fwd"),
        (
            shared_object(names=kernel_names([96], ["bf16"], ["fwd"]) + REFUSALS),
            RECIPE.version,
            "it lacks the kernel fwd-split head dim 96 bf16; it lacks the kernel fwd-split head dim 96 bf16 causal",
        ),
        (
            shared_object(names=NAMES + kernel_names([64], ["bf16"], ["fwd"])),
            RECIPE.version,
            "it holds the kernel fwd head dim 64 bf16, which nobody asked for",
        ),
        (
            shared_object(names=NAMES, device_code=fatbin(["80", "90"])),
            RECIPE.version,
            r"it has machine code for .*'80', '90'.*, not .*'80'",
        ),
        (
            shared_object(names=kernel_names([96], ["bf16"]) + REFUSALS.replace(b"backward", b"forwards")),
            RECIPE.version,
            "its kernels lack backward and its API does not refuse it",
        ),
    ],
)
def test_anything_else_is_not_kept(tmp_path: Path, library: bytes, version: str, problem: str) -> None:
    with pytest.raises(IngredientError, match=f"is not what row lean asks for: .*{problem}.*It was not kept"):
        verify(tmp_path, library, version)


def test_a_wheel_without_kernels_must_have_none(tmp_path: Path) -> None:
    row = replace(ROW, flash_attn=FlashAttn(source="skip-cuda"))
    recipe = lean.recipe(row)
    empty = wheel(tmp_path / "empty", version=recipe.version, library=b"", tags="py3-none-any")
    builder.verify(wheel_file.read(empty, source="skip-cuda"), recipe, row)
    full = wheel(tmp_path / "full", version=recipe.version)
    with pytest.raises(IngredientError, match="which nobody asked for"):
        builder.verify(wheel_file.read(full, source="skip-cuda"), recipe, row)


def test_the_builder_stage_stands_on_the_base_that_assay_made(tmp_path: Path) -> None:
    class Engine:
        buildkit = True
        supports_copy_link = True

        def build(self, context: Path, **options: object) -> str:
            assert options["target"] == builder.BUILDER_STAGE
            assert options["build_args"] == {"BASE": "localhost/assay/debian:bookworm"}
            raise IngredientError("seen")

    with pytest.raises(IngredientError, match="seen"):
        builder.build(
            ROW,
            RECIPE,
            RECIPE.key(),
            Store(tmp_path / "store"),
            engine=Engine(),  # type: ignore[arg-type]
            network=NetworkSettings(),
            out=tmp_path,
            on_event=lambda event: None,
            cancel=None,
        )


def test_a_wheel_is_not_kept_where_the_base_that_brings_torch_changed_under_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engine:
        buildkit = True
        supports_copy_link = True
        copied = False

        def build(self, context: Path, **options: object) -> str:
            return "sha256:stage"

        def copy_out(self, *_: object) -> None:
            self.copied = True

    row = replace(ROW, torch="base", base="my/torch:latest")
    engine = Engine()
    image = {"digest": "sha256:1"}
    monkeypatch.setattr(
        builder.base, "held", lambda _engine, ref: builder.base.BaseImage(ref=ref, id="sha256:0", **image)
    )

    def build() -> None:
        recipe = lean.recipe(row, "sha256:1")
        builder.build(
            row,
            recipe,
            str(recipe.key()),
            Store(tmp_path / "store"),
            engine=engine,  # type: ignore[arg-type]
            network=NetworkSettings(),
            out=tmp_path,
            on_event=lambda event: None,
            cancel=None,
        )

    with pytest.raises(IngredientError, match="not one wheel"):  # as far as taking it out
        build()
    engine.copied = False
    image["digest"] = "sha256:2"
    with pytest.raises(IngredientError, match="my/torch:latest was given to another image while a wheel"):
        build()
    assert not engine.copied
