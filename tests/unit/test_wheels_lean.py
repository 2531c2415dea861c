"""What a lean wheel is: which files are compiled, what the others become, and under which key it is kept."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace

import pytest
from packaging.version import Version

from assay import paths, pinned
from assay.errors import IngredientError
from assay.matrix.row import FlashAttn, Row
from assay.wheels import lean
from assay.wheels.wheelhouse import wanted_kernels

ROW = Row(id="lean", expect="certify", flash_attn=FlashAttn(source="compile"))
KERNELS = lean.kernels()

# The sources of flash-attn 2.8.3's setup.py.
SOURCES = ["csrc/flash_attn/flash_api.cpp"] + [
    f"csrc/flash_attn/src/flash_{family}_hdim{head_dim}_{dtype}{causal}_sm80.cu"
    for family in ("fwd", "bwd", "fwd_split")
    for head_dim in (32, 64, 96, 128, 192, 256)
    for dtype in ("fp16", "bf16")
    for causal in ("", "_causal")
]


def asked(**changes: object) -> Row:
    """Return the row with another flash-attn."""
    return replace(ROW, flash_attn=replace(ROW.flash_attn, **changes))  # type: ignore[arg-type]


def test_only_the_kernels_asked_for_are_compiled() -> None:
    inside = KERNELS.Asked((64, 96, 128), ("bf16", "fp16"), ("80",))
    kept, absent = KERNELS.split(SOURCES, inside)
    assert len(SOURCES) == 73
    assert len(kept) == 1 + 24
    assert len(absent) == 72 - 24
    assert not any("bwd" in source or "hdim32" in source for source in kept)
    assert len(wanted_kernels(FlashAttn())) == 24  # what the wheel is searched for afterwards


def test_something_that_setup_py_has_no_file_for_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no file for .*100.* head dims are \[32, 64, 96, 128, 192, 256\]"):
        KERNELS.split(SOURCES, KERNELS.Asked((64, 100), ("bf16",), ("80",)))


def test_every_absent_kernel_is_defined_once_and_says_what_the_wheel_holds() -> None:
    inside = KERNELS.Asked((96,), ("bf16",), ("80", "90"))
    _, absent = KERNELS.split(SOURCES, inside)
    source = KERNELS.absent_source(absent, inside, "2.8.3+local")
    defined = re.findall(r"^ABSENT\((\w+), Flash_(\w+)_params, cutlass::(\w+), (\d+), (\w+),", source, re.MULTILINE)
    assert len(defined) == len(set(defined)) == 72 - 4
    assert ("run_mha_fwd_", "fwd", "bfloat16_t", "96", "true") not in defined
    assert ("run_mha_fwd_splitkv_dispatch", "fwd", "half_t", "96", "true") in defined
    assert ("run_mha_bwd_", "bwd", "bfloat16_t", "96", "false") in defined
    assert "holds only the forward kernels of head dim 96 in bf16 for sm_80 and sm_90;" in source
    assert "2.8.3+local" in source
    assert "@" not in source


@pytest.mark.parametrize("archs", [("80",), ("90", "80")])
def test_the_local_version_is_a_valid_and_normal_one(archs: tuple[str, ...]) -> None:
    version = lean.recipe(asked(archs=archs)).version
    assert str(Version(version)) == version
    assert Version(version).public == "2.8.3"
    assert version.endswith(f".sm{'.'.join(sorted(archs))}.fwd")


def test_a_wheel_without_kernels_needs_no_compiler() -> None:
    recipe = lean.recipe(asked(source="skip-cuda", nvcc="1.0", archs=("50",)))
    assert recipe.compiler is None
    assert recipe.source == "skip-cuda"
    assert str(Version(recipe.version)) == "2.8.3+assay.nokernels"


@pytest.mark.parametrize(
    "change",
    [
        {"head_dims": (64,)},
        {"dtypes": ("bf16",)},
        {"archs": ("80", "90")},
        {"nvcc": "11.8"},
        {"source": "skip-cuda"},
    ],
)
def test_the_key_changes_with_everything_that_the_wheel_is_made_from(change: dict[str, object]) -> None:
    assert lean.recipe(asked(**change)).key() != lean.recipe(ROW).key()


def test_the_key_does_not_change_with_the_order_or_with_what_does_not_matter() -> None:
    key = lean.recipe(ROW).key()
    assert lean.recipe(asked(head_dims=(128, 64, 96), dtypes=("fp16", "bf16"), nvcc="12.4.1")).key() == key
    assert lean.recipe(replace(ROW, id="other", cuda="12.0.1", gpus=("A10",))).key() == key
    assert lean.recipe(replace(ROW, python="3.12")).key() != key


def test_the_key_names_the_image_that_brings_torch_and_there_is_none_before_that_is_known() -> None:
    row = replace(ROW, torch="base", base="my/torch:latest")
    assert lean.recipe(row).key() is None
    keys = {lean.recipe(row, digest).key() for digest in ("sha256:1", "sha256:2")}
    assert len(keys) == 2
    assert None not in keys
    assert lean.recipe(row, "sha256:1").record()["base_digest"] == "sha256:1"


def test_the_key_of_a_wheel_for_a_torch_that_assay_installs_says_nothing_of_the_image() -> None:
    """Wheels that were compiled before bases were looked at are still found."""
    recipe = lean.recipe(ROW, "sha256:1")
    assert recipe == lean.recipe(ROW)
    said = {name: value for name, value in asdict(recipe).items() if name != "base_digest"}
    assert set(recipe.record()) == {*said, "compiler_package"}
    made_from = {"recipe": said, "files": lean.files_digest(paths.docker_dir())}
    assert recipe.key() == hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def test_the_key_covers_every_file_of_the_builder_stage() -> None:
    names = {path.name for path in lean.build_files(paths.docker_dir())}
    assert {"flash-attn.build.dockerfile.j2", "build.py", "kernels.py", "nvcc.py", "compilers.json"} <= names
    assert {"absent_kernels.cpp.in", "sdist-2.8.3.txt", "tools.txt", "headers-12.4.txt"} <= names
    assert not any(name.endswith(".pyc") for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nvcc": "12.5"}, "'12.5'.*no such compiler is known"),
        ({"archs": ("86",)}, "'86'.*code for 80 also runs on GPUs of 8.6 and 8.9"),
        ({"version": "2.8.4"}, "sdist-2.8.4.txt is missing; perhaps you meant '2.8.3'"),
    ],
)
def test_what_cannot_be_compiled_is_said_before_anything_is_built(change: dict[str, object], message: str) -> None:
    with pytest.raises(IngredientError, match=message):
        lean.recipe(asked(**change))


def test_every_compiler_that_compiles_has_its_headers_pinned() -> None:
    folder = paths.docker_dir() / pinned.FLASH_ATTN / "nvcc"
    for name, compiler in pinned.compilers().items():
        assert re.fullmatch(r"[0-9a-f]{64}", compiler.sha256)
        assert compiler.version.startswith(f"{name}.")
        if compiler.headers:
            headers = (folder / compiler.headers).read_text(encoding="utf-8")
            assert f"nvidia-cuda-nvcc-cu12=={compiler.version}" in headers
            assert headers.count("==") <= headers.count("--hash=sha256:")


def test_the_sdist_is_the_one_whose_hash_is_pinned() -> None:
    assert pinned.sdist_sha256("2.8.3") == "1e71dd64a9e0280e0447b8a0c2541bad4bf6ac65bdeaa2f90e51a9e57de0370d"
