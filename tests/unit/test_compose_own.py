"""What a row adds of its own, in its Dockerfile and build context: on BuildKit, linked, and for the classic builder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay import matrix, pinned, requirements
from assay.compose import Composed, compose, parts_of
from assay.engine.build import failure
from assay.errors import BuildFailed, IngredientError, MatrixError
from assay.matrix.row import FlashAttn, Requirements, Row
from assay.network import NetworkSettings
from assay.row_record import ingredients

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "examples/own-image"
A = "a" * 64
FRONTENDS: dict[str, dict[str, Any]] = {
    "buildkit": {"frontend": "buildkit"},
    "linked": {"frontend": "buildkit", "link": True},
    "classic": {"frontend": "classic"},
}
FRAGMENT = "COPY own/serve.py /opt/app/\nRUN python -m compileall /opt/app\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a matrix: requirements, a fragment and what it copies."""
    folder = tmp_path / "matrix"
    (folder / "app/static").mkdir(parents=True)
    (folder / "app/serve.py").write_text("print('hello')\n")
    (folder / "app/static/.hidden").write_text("x")
    (folder / "own.dockerfile").write_text(FRAGMENT)
    (folder / "requirements.txt").write_text(f"bottle==0.13.4 --hash=sha256:{A}\n")
    return folder


def row_of(folder: Path, **changes: Any) -> Row:
    file = requirements.read(folder / "requirements.txt")
    own = Requirements(
        path="requirements.txt", sha256=file.sha256, packages=tuple((pin.name, pin.version) for pin in file.pins)
    )
    row = Row(
        id="own",
        expect="certify",
        flash_attn=FlashAttn(source="none"),
        requirements=own,
        dockerfile="own.dockerfile",
        context="app",
    )
    return replace(row, **changes)


def composed(row: Row, folder: Path, out: Path, **options: Any) -> Composed:
    return compose(row, out=out, network=NetworkSettings(), wheel=None, files_from=folder, **options)


def part(dockerfile: str, name: str) -> str:
    return dockerfile.partition(f"# part: {name}\n")[2].partition("# part: ")[0]


@pytest.mark.parametrize("options", FRONTENDS.values(), ids=FRONTENDS.keys())
@pytest.mark.parametrize("base", ["debian:bookworm", "nvidia/cuda:12.1.1-devel-ubuntu22.04"])
def test_the_example_passes_the_linter(options: dict[str, Any], base: str, tmp_path: Path) -> None:
    hadolint = shutil.which(
        "hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ) or pytest.skip("hadolint is not installed")
    (row,) = matrix.load(EXAMPLE / "matrix.toml").rows
    made = composed(replace(row, base=base), EXAMPLE, tmp_path, **options)
    answer = subprocess.run(
        [hadolint, "--no-color", "--config", str(CHECKOUT / ".hadolint.yaml"), str(made.dockerfile)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout + answer.stderr == ""


@pytest.mark.parametrize("options", FRONTENDS.values(), ids=FRONTENDS.keys())
def test_the_parts_stand_where_they_belong(options: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    made = composed(row_of(folder), folder, tmp_path / "out", **options)
    assert made.parts[-4:] == ("requirements", "toolkit", "own", "labels")
    text = made.dockerfile.read_text()
    assert part(text, "own").strip() == FRAGMENT.strip()
    installs = [line for line in part(text, "requirements").splitlines() if "--require-hashes" in line]
    assert len(installs) == 1
    assert installs[0].endswith("-r /run/locks/requirements.txt")
    assert "--no-deps" in part(text, "requirements")
    assert (made.folder / "locks/requirements.txt").read_text() == f"bottle==0.13.4 \\\n    --hash=sha256:{A}\n"
    files = sorted(path.relative_to(made.folder).as_posix() for path in (made.folder / "own").rglob("*"))
    assert files == ["own/serve.py", "own/static", "own/static/.hidden"]
    assert "!own" in (made.folder / ".dockerignore").read_text().splitlines()


def test_packages_made_in_a_stage_of_their_own_lie_below_the_toolkit(folder: Path, tmp_path: Path) -> None:
    for name, options in FRONTENDS.items():
        row = row_of(folder, base="nvidia/cuda:12.1.1-devel-ubuntu22.04")
        text = composed(row, folder, tmp_path / name, **options).dockerfile.read_text()
        stages = [line.split()[1::2] for line in text.splitlines() if line.startswith("FROM ")]
        copied = name != "buildkit"
        assert (["image", "image-with-requirements"] in stages) is copied
        assert (["image-with-requirements", "image-with-toolkit"] in stages) is copied
        assert ["image", "image-with-toolkit"] not in stages


def test_rows_without_any_are_composed_as_before(folder: Path, tmp_path: Path) -> None:
    plain = row_of(folder, requirements=None, dockerfile=None, context=None)
    made = composed(plain, folder, tmp_path)
    assert not {"requirements", "own"} & set(made.parts)
    assert not (made.folder / "own").exists()
    assert "\n\n\n" not in made.dockerfile.read_text()


def test_composing_without_them_leaves_none_behind(folder: Path, tmp_path: Path) -> None:
    plain = row_of(folder, requirements=None, dockerfile=None, context=None)
    composed(row_of(folder), folder, tmp_path / "a")
    assert composed(plain, folder, tmp_path / "a").digest == composed(plain, folder, tmp_path / "b").digest


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "own.dockerfile").write_text(FRAGMENT + "USER 1000\n"),
        lambda folder: (folder / "app/serve.py").write_text("print('other')\n"),
        lambda folder: (folder / "app/serve.py").chmod(0o755),
        lambda folder: (folder / "app/new").touch(),
        lambda folder: (folder / "requirements.txt").write_text(f"bottle==0.13.3 --hash=sha256:{A}\n"),
    ],
)
def test_whatever_changes_the_image_changes_the_digest(change: Any, folder: Path, tmp_path: Path) -> None:
    before = composed(row_of(folder), folder, tmp_path / "out").digest
    assert composed(row_of(folder), folder, tmp_path / "out").digest == before
    change(folder)
    assert composed(row_of(folder), folder, tmp_path / "out").digest != before


def test_what_changes_nothing_in_the_image_does_not(folder: Path, tmp_path: Path) -> None:
    before = composed(row_of(folder), folder, tmp_path / "out").digest
    (folder / "app/__pycache__").mkdir()
    (folder / "app/__pycache__/serve.pyc").touch()
    (folder / "app/empty").mkdir()
    assert composed(row_of(folder), folder, tmp_path / "out").digest == before


def test_blank_lines_of_a_heredoc_stay(folder: Path, tmp_path: Path) -> None:
    heredoc = "COPY <<EOF /etc/motd\none\n\n\n\ntwo {{ row.id }}\nEOF"
    (folder / "own.dockerfile").write_text(f"{heredoc}\n\n\n")
    assert heredoc in composed(row_of(folder), folder, tmp_path, link=True).dockerfile.read_text()


@pytest.mark.parametrize(
    ("fragment", "options", "told"),
    [
        (
            "USER 1\nRUN <<EOF\ntrue\nEOF\n",
            "buildkit",
            r"own\.dockerfile:2: a heredoc needs BuildKit of Docker Engine 23",
        ),
        ("RUN --mount=type=tmpfs,target=/x true\n", "classic", r"own\.dockerfile:1: RUN --mount needs BuildKit"),
        ("COPY --chmod=755 own/serve.py /\n", "classic", r"own\.dockerfile:1: COPY --chmod needs BuildKit"),
    ],
)
def test_what_the_engine_does_not_know_is_told_before_the_build(
    fragment: str, options: str, told: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "own.dockerfile").write_text(fragment)
    with pytest.raises(IngredientError, match=told):
        composed(row_of(folder), folder, tmp_path, **FRONTENDS[options])
    assert composed(row_of(folder), folder, tmp_path, link=True)


def test_what_the_classic_builder_knows_is_left_to_it(folder: Path, tmp_path: Path) -> None:
    (folder / "own.dockerfile").write_text("COPY --chown=1:1 own/serve.py /\nHEALTHCHECK --interval=1m CMD true\n")
    assert composed(row_of(folder), folder, tmp_path, frontend="classic")


def test_a_package_that_a_lock_brings_is_not_installed_again(folder: Path, tmp_path: Path) -> None:
    held = pinned.locked(["torch-2.4.0-cu121/torch-py3.11.txt"])["torch"].pin
    (folder / "requirements.txt").write_text(requirements.text([held]))
    made = composed(row_of(folder), folder, tmp_path)
    assert "requirements" not in made.parts
    assert not (made.folder / "locks/requirements.txt").exists()


def test_requirements_that_changed_since_the_matrix_was_read(folder: Path, tmp_path: Path) -> None:
    row = row_of(folder)
    (folder / "requirements.txt").write_text("")
    with pytest.raises(IngredientError, match=r"requirements\.txt changed since the matrix was read"):
        composed(row, folder, tmp_path)
    (folder / "requirements.txt").unlink()
    with pytest.raises(IngredientError, match=r"requirements\.txt cannot be read"):
        composed(row, folder, tmp_path)


def test_a_fragment_that_was_spoilt_since(folder: Path, tmp_path: Path) -> None:
    (folder / "own.dockerfile").write_text("USER 1000\nFROM scratch\n")
    with pytest.raises(MatrixError, match=r"own\.dockerfile:2: FROM would begin another image"):
        composed(row_of(folder), folder, tmp_path)


def test_a_link_that_came_since(folder: Path, tmp_path: Path) -> None:
    (folder / "app/link").symlink_to("/etc")
    with pytest.raises(IngredientError, match=r"app/link is neither a file nor a folder"):
        composed(row_of(folder), folder, tmp_path)


def test_an_output_inside_the_context_would_contain_itself(folder: Path) -> None:
    with pytest.raises(IngredientError, match="inside its own context"):
        composed(row_of(folder), folder, folder / "app/build")


def test_packages_for_a_base_that_brings_torch(folder: Path, tmp_path: Path) -> None:
    row = row_of(folder, torch="base")
    text = composed(row, folder, tmp_path).dockerfile.read_text()
    assert "--break-system-packages" in part(text, "requirements")
    with pytest.raises(IngredientError, match="needs BuildKit"):
        composed(row, folder, tmp_path, frontend="classic")


def test_the_stage_that_builds_the_wheel_takes_none_of_it(folder: Path, tmp_path: Path) -> None:
    row = row_of(folder, flash_attn=FlashAttn())
    made = composed(row, tmp_path / "elsewhere", tmp_path / "out", stop_at="flash-attn-wheel")
    assert not (made.folder / "own").exists()
    assert parts_of(made.dockerfile.read_text())[-1] == "flash-attn"


def test_classic_keeps_the_network_out_of_the_image(folder: Path, tmp_path: Path) -> None:
    text = composed(row_of(folder), folder, tmp_path, frontend="classic").dockerfile.read_text()
    assert "--mount" not in text
    parents, stage, holding = {}, "", set()
    for line in text.splitlines():
        if line.startswith("FROM"):
            stage = line.split()[3]
            parents[stage] = line.split()[1]
        elif line.startswith("COPY network"):
            holding.add(stage)
    assert holding == {"tools"}
    while stage in parents:
        assert stage not in holding
        stage = parents[stage]


@pytest.mark.parametrize(
    ("options", "step", "error"),
    [
        ("buildkit", "[image 7/7] RUN python -m compileall /opt/app", "exit code: 1"),
        ("classic", "Step {number}/{number} : RUN python -m compileall /opt/app", "returned a non-zero code: 1"),
    ],
)
def test_a_failing_step_is_reported_as_the_rows_own(
    options: str, step: str, error: str, folder: Path, tmp_path: Path
) -> None:
    text = composed(row_of(folder), folder, tmp_path, **FRONTENDS[options]).dockerfile.read_text()
    before = "\n".join(text.partition("RUN python -m compileall")[0].splitlines()).replace("\\\n", " ")
    number = len([line for line in before.splitlines() if line and not line.startswith("#")]) + 1
    found = failure(
        f"... {error}",
        step=step.format(number=number),
        step_error=f"... {error}",
        tail=["SyntaxError: invalid syntax"],
        dockerfile_text=text,
    )
    assert isinstance(found, BuildFailed)
    assert found.part == "own"
    assert found.log[0] == "SyntaxError: invalid syntax"


def test_a_line_that_the_engine_cannot_parse_is_the_rows_own(folder: Path, tmp_path: Path) -> None:
    text = composed(row_of(folder), folder, tmp_path).dockerfile.read_text()
    line = text.splitlines().index("COPY own/serve.py /opt/app/") + 1
    found = failure(
        f"dockerfile parse error on line {line}: bad flag", step="", step_error="", tail=[], dockerfile_text=text
    )
    assert isinstance(found, BuildFailed)
    assert found.part == "own"


def test_the_requirements_are_an_ingredient_as_the_row_names_them(folder: Path, tmp_path: Path) -> None:
    row = row_of(folder)
    assert row.requirements is not None
    found = [one for one in ingredients(row, composed(row, folder, tmp_path), None) if "requirements" in one.name]
    assert [(one.sha256, one.source) for one in found] == [(row.requirements.sha256, "requirements.txt")]
