"""What a run says of its GPU and its rows before anything is built."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay import releases
from assay.engine.gpu import GpuAccess, HostGpu
from assay.findings import Level
from assay.matrix.row import FlashAttn, Row
from assay.workflow import foreign_gpu, several_capabilities

H100 = HostGpu(index=0, uuid="GPU-1", name="NVIDIA H100 80GB HBM3", driver="580.159.04", capability="9.0")
ACCESS = GpuAccess(mode="devices", gpu=H100)


@pytest.mark.parametrize(
    ("capability", "gpus", "archs", "warned"),
    [
        ("9.0", ("A100",), ("80",), True),
        ("9.0", ("A100",), ("80", "90"), False),
        ("9.0", ("A100", "H200"), ("80",), False),  # flash-attn.kernels will say what is wrong with that
        ("8.6", ("A100",), ("80",), False),
        ("", ("A100",), ("80",), False),  # an old nvidia-smi does not tell
    ],
)
def test_rows_for_another_gpu_are_named_before_anything_is_built(
    capability: str, gpus: tuple[str, ...], archs: tuple[str, ...], warned: bool
) -> None:
    access = replace(ACCESS, gpu=replace(H100, capability=capability))
    row = Row(id="r", expect="certify", gpus=gpus, flash_attn=FlashAttn(archs=archs))
    notes = foreign_gpu([row], access, releases.load())
    assert bool(notes) is warned
    assert all(note.startswith("r: neither") and "--level image" in note for note in notes)
    assert foreign_gpu([row], None, releases.load()) == []


@pytest.mark.parametrize(
    ("row", "warned"),
    [
        ({"gpus": ("A100", "H100")}, True),
        ({"gpus": ("H100", "H200")}, False),
        ({"gpus": ("A100",)}, False),
        ({"gpus": ("A100", "H100"), "required_level": Level.IMAGE}, False),
        ({"gpus": ("A100", "H100"), "expect": "reject"}, False),
    ],
)
def test_rows_that_one_gpu_cannot_speak_for_are_named_before_anything_is_built(row: dict, warned: bool) -> None:
    rows = [Row(**{"id": "r", "expect": "certify", **row})]
    notes = several_capabilities(rows, ACCESS, releases.load())
    assert bool(notes) is warned
    assert all(note.startswith("r: `gpus` names several compute capabilities") for note in notes)
    assert several_capabilities(rows, None, releases.load()) == []
