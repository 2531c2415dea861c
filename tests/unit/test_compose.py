"""Dockerfiles: what each row gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from composing import CHECKOUT, OFFLINE, PLAIN, ROWS, stand_in

from assay.compose import compose, part_of_line, parts_of
from assay.compose.variables import dockerfile_string
from assay.errors import IngredientError, MatrixError
from assay.matrix.row import FlashAttn, Row
from assay.wheels import Wheel

DEBIAN = replace(PLAIN, id="debian-toolkit", toolkit="debian", base="debian:trixie", cuda="12.4.1", torch="base")


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    return stand_in(tmp_path)


def text(row: Row, out: Path, wheel: Wheel | None = None, **options: object) -> str:
    return compose(row, out=out, network=OFFLINE, wheel=wheel, **options).dockerfile.read_text()  # type: ignore[arg-type]


def instructions(dockerfile: str) -> list[str]:
    """The Dockerfile without comments, continuation lines joined: one string per instruction."""
    lines = (line for line in dockerfile.splitlines() if line and not line.startswith("#"))
    return "\n".join(lines).replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("frontend", ["buildkit", "classic"])
@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("row", [*ROWS.values(), DEBIAN], ids=[*ROWS.keys(), DEBIAN.id])
def test_every_row_passes_the_linter(row: Row, frontend: str, link: bool, tmp_path: Path) -> None:
    hadolint = shutil.which(
        "hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ) or pytest.skip("hadolint is not installed")
    composed = compose(row, out=tmp_path, network=OFFLINE, wheel=None, frontend=frontend, link=link)  # type: ignore[arg-type]
    config = CHECKOUT / ".hadolint.yaml"
    answer = subprocess.run(
        [hadolint, "--no-color", "--config", str(config), str(composed.dockerfile)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout + answer.stderr == ""


def test_rows_differ_only_from_the_toolkit_on(tmp_path: Path, wheel: Wheel) -> None:
    """What makes the engine share the layers of base, Python, torch, flash-attn and runtime between the rows."""
    until_toolkit = {
        row: "\n".join(instructions(text(ROWS[row], tmp_path, wheel).rpartition("# part: toolkit")[0]))
        for row in ("cu120", "cu120-on-library-path", "cu121", "cu122")
    }
    assert len(set(until_toolkit.values())) == 1
    assert "torch.txt" in until_toolkit["cu121"]


def test_the_toolkit_layer_is_shared_by_rows_of_one_release(tmp_path: Path, wheel: Wheel) -> None:
    plain = instructions(text(ROWS["cu120"], tmp_path, wheel))
    on_path = instructions(text(ROWS["cu120-on-library-path"], tmp_path, wheel))
    added = [line for line in on_path if line not in plain and not line.lstrip().startswith(("LABEL", "io."))]
    assert added == ["ENV LD_LIBRARY_PATH=/usr/local/cuda-12.0/lib64"]


def test_a_wheel_is_pinned_by_its_hash(tmp_path: Path, wheel: Wheel) -> None:
    composed = compose(ROWS["cu121"], out=tmp_path / "out", network=OFFLINE, wheel=wheel)
    pin = (composed.folder / "wheels/requirements.txt").read_text()
    assert (
        pin == f"flash-attn @ file:///run/wheels/{wheel.path.name.replace('+', '%2B')} --hash=sha256:{wheel.sha256}\n"
    )
    assert (composed.folder / "wheels" / wheel.path.name).read_bytes() == wheel.path.read_bytes()
    assert composed.labels["io.assay.flash-attn.sha256"] == wheel.sha256
    assert "flash-attn-wheel" not in composed.dockerfile.read_text()


def test_without_a_wheel_a_stage_builds_it(tmp_path: Path) -> None:
    dockerfile = text(ROWS["cu118-compile"], tmp_path)
    assert "AS flash-attn-wheel" in dockerfile
    assert "from=flash-attn-wheel" in dockerfile


def test_a_dockerfile_can_end_with_the_wheel(tmp_path: Path) -> None:
    dockerfile = text(ROWS["cu121"], tmp_path, stop_at="flash-attn-wheel")
    stages = [line.rpartition(" AS ")[2] for line in instructions(dockerfile) if line.startswith("FROM")]
    assert stages[-1] == "flash-attn-wheel"
    assert parts_of(dockerfile)[-1] == "flash-attn"


def test_a_wheel_that_was_to_be_found_and_is_not(tmp_path: Path) -> None:
    row = replace(PLAIN, flash_attn=FlashAttn(source="wheelhouse"))
    with pytest.raises(IngredientError, match=r"no wheel was found there.*--wheelhouse"):
        compose(row, out=tmp_path, network=OFFLINE, wheel=None)


def test_an_unknown_release(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"12\.1\.104"):
        compose(replace(PLAIN, cuda="12.1.104"), out=tmp_path, network=OFFLINE, wheel=None)


def test_overlay_files_and_environment(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(b"other")
    row = replace(PLAIN, files=(("/opt/venv/lib.so", "lib.so"),), env=(("GREETING", 'say "$HOME" \\o/'),))
    composed = compose(row, out=tmp_path / "out", network=OFFLINE, wheel=None, files_from=tmp_path)
    lines = instructions(composed.dockerfile.read_text())
    assert 'COPY ["files/00-lib.so", "/opt/venv/lib.so"]' in lines
    assert r'ENV GREETING="say \"\$HOME\" \\o/"' in lines
    assert (composed.folder / "files/00-lib.so").read_bytes() == b"other"


def test_a_line_break_cannot_reach_the_dockerfile() -> None:
    with pytest.raises(IngredientError, match="line break"):
        dockerfile_string("a\nRUN b")


def test_classic_frontend_needs_no_mounts_and_keeps_the_network_out_of_the_image(tmp_path: Path) -> None:
    dockerfile = text(ROWS["nvidia-cu121"], tmp_path, frontend="classic")
    assert "--mount" not in dockerfile
    assert "COPY --link" not in dockerfile
    parents = stage_parents(dockerfile)
    last = list(parents)[-1]
    ancestors = {last}
    while (last := parents[last]) in parents:
        ancestors.add(last)
    assert stages_that_hold_the_network(dockerfile).isdisjoint(ancestors)


def stage_parents(dockerfile: str) -> dict[str, str]:
    words = [line.split() for line in instructions(dockerfile) if line.startswith("FROM")]
    return {word[3]: word[1] for word in words}


def stages_that_hold_the_network(dockerfile: str) -> set[str]:
    stage, found = "", set()
    for line in instructions(dockerfile):
        if line.startswith("FROM"):
            stage = line.split()[3]
        if line.startswith("COPY network"):
            found.add(stage)
    assert found, "a classic build has to copy the settings somewhere"
    return found


def test_linked_copies_come_from_stages_that_do_not_know_the_base(tmp_path: Path) -> None:
    """Else each row would make its own 5 GB layer of torch, and nothing would be shared."""
    made = []
    for name in ("nvidia-cu120", "nvidia-cu121", "nvidia-cu122"):
        dockerfile = text(ROWS[name], tmp_path, link=True)
        assert "COPY --link --from=torch-files" in dockerfile
        assert stage_parents(dockerfile)["torch-files"] == "tools"
        assert stage_parents(dockerfile)["tools"] == "${INSTALLER_BASE}"
        after = dockerfile.partition("# part: tools")[2]
        made.append(after.partition("FROM python AS torch")[0])
    assert len(set(made)) == 1


def test_a_dockerfile_names_the_bases_of_its_row_and_assay_passes_its_own(tmp_path: Path) -> None:
    """Built without assay, a name of assay's own would be looked for in a registry, where it may be anybody's."""
    own = {"BASE": "localhost/assay/debian:bookworm"}
    for row, link, named, passed in (
        (ROWS["cu121"], False, ["ARG BASE=debian:bookworm"], own),
        (ROWS["nvidia-cu121"], False, ["ARG BASE=nvidia/cuda:12.1.1-devel-ubuntu22.04"], {}),
        (
            ROWS["nvidia-cu121"],
            True,
            ["ARG BASE=nvidia/cuda:12.1.1-devel-ubuntu22.04", "ARG INSTALLER_BASE=debian:bookworm"],
            {"INSTALLER_BASE": "localhost/assay/debian:bookworm"},
        ),
    ):
        for stop_at in (None, "flash-attn-wheel"):
            composed = compose(row, out=tmp_path, network=OFFLINE, wheel=None, link=link, stop_at=stop_at)
            dockerfile = composed.dockerfile.read_text()
            lines = instructions(dockerfile)
            first = next(number for number, line in enumerate(lines) if line.startswith("FROM"))
            assert lines[:first] == named, "an ARG for a FROM stands before the first stage"
            assert composed.build_args == passed
            assert "localhost" not in dockerfile
            assert "assay/debian" not in dockerfile


def test_rows_on_the_common_base_copy_nothing(tmp_path: Path, wheel: Wheel) -> None:
    assert text(ROWS["cu121"], tmp_path, wheel, link=True) == text(ROWS["cu121"], tmp_path, wheel)


def test_parts_of_lines() -> None:
    dockerfile = "# intro\n# part: base\nFROM a AS base\n\n# part: torch\nRUN b \\\n  && c\n"
    assert [part_of_line(dockerfile, line) for line in (3, 6, 7)] == ["base", "torch", "torch"]
    with pytest.raises(ValueError, match="line 1 "):
        part_of_line(dockerfile, 1)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_every_instruction_belongs_to_a_part(row: Row, tmp_path: Path) -> None:
    dockerfile = text(row, tmp_path)
    numbered = list(enumerate(dockerfile.splitlines(), start=1))
    for number, line in numbered:
        if line and not line.startswith("#"):
            assert part_of_line(dockerfile, number) in parts_of(dockerfile)
    assert {"base", "python", "torch", "flash-attn", "toolkit", "labels"} <= set(parts_of(dockerfile))
