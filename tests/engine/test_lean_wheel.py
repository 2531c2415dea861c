"""Builds flash-attn wheels for real, in the builder stage, and looks at their machine code.

What is compiled stays in the engine's build cache and the state folder: only the first run on a machine takes minutes.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from assay import base, paths, wheels
from assay.compose import compose
from assay.engine import BuildEvent, Engine
from assay.engine.containers import Mount
from assay.errors import BuildFailed
from assay.matrix.row import FlashAttn, Row
from assay.network import NetworkSettings

pytestmark = pytest.mark.engine

LEAN = Row(
    id="lean",
    expect="certify",
    flash_attn=FlashAttn(source="compile", head_dims=(96,), dtypes=("bf16",), archs=("80",)),
)


@pytest.fixture(scope="module")
def network(engine: Engine) -> NetworkSettings:
    """The machine's network, with the base image in the engine."""
    settings = NetworkSettings.from_host()
    base.ensure(engine, LEAN.base, settings, on_event=lambda _event: None)
    return settings


def provide(engine: Engine, network: NetworkSettings, row: Row, out: Path, told: list[BuildEvent]) -> wheels.Wheel:
    """Get the wheel of a row without any wheelhouse."""
    wheel = wheels.provide(row, engine=engine, wheelhouses=[], network=network, out=out, on_event=told.append)
    assert wheel is not None
    return wheel


def test_a_lean_wheel_holds_exactly_the_kernels_asked_for(
    engine: Engine, network: NetworkSettings, tmp_path: Path, name: str
) -> None:
    wheel = provide(engine, network, LEAN, tmp_path, [])
    assert wheel.version == "2.8.3+assay.hd96.bf16.sm80.fwd"
    assert wheel.compiler == "nvcc 12.4.131, g++ 12.2.0"
    assert paths.state_dir() in wheel.path.parents

    with_torch = compose(LEAN, out=tmp_path / "torch", network=network, wheel=None, stop_at="flash-attn-wheel")
    image = engine.build(
        with_torch.folder,
        tag=name,
        target="torch",
        labels={},
        build_args=with_torch.build_args,
        network="host",
        cancel=None,
        on_event=lambda _event: None,
        log=tmp_path / "torch.log",
    )
    result = engine.run(
        image,
        ["python", "/probe.py"],
        mounts=[
            Mount(source=wheel.path.parent, target="/wheel"),
            Mount(source=Path(__file__).with_name("lean_probe.py"), target="/probe.py"),
        ],
        timeout=300,
    )
    assert result.exit_code == 0, result.stderr_tail
    probed = json.loads(result.stdout_tail[-1])
    assert probed["modules"] == ["sm_80"] * 4
    assert probed["kernels"] == [
        "flash_fwd_kernel/96/10bfloat16_t",
        "flash_fwd_splitkv_combine_kernel/96/10bfloat16_t",
        "flash_fwd_splitkv_kernel/96/10bfloat16_t",
    ]
    said = "\n".join(probed["absent"])
    assert "was built without the forward kernel for head dim 256 in fp16" in said
    assert "holds only the forward kernels of head dim 96 in bf16 for sm_80" in said


def test_a_wheel_without_kernels_holds_no_extension(engine: Engine, network: NetworkSettings, tmp_path: Path) -> None:
    row = replace(LEAN, flash_attn=FlashAttn(source="skip-cuda"))
    wheel = provide(engine, network, row, tmp_path, [])
    assert wheel.version == "2.8.3+assay.nokernels"
    assert wheel.extension is None
    assert not any(name.endswith(".so") for name in wheel.files)


def test_two_rows_that_need_one_wheel_build_it_once(
    engine: Engine, network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path / "state"))
    rows = [replace(LEAN, id=name, flash_attn=FlashAttn(source="skip-cuda")) for name in ("one", "two")]
    told: dict[str, list[BuildEvent]] = {row.id: [] for row in rows}
    got: dict[str, wheels.Wheel] = {}

    def work(row: Row) -> None:
        got[row.id] = provide(engine, network, row, tmp_path / "out", told[row.id])

    threads = [threading.Thread(target=work, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got["one"].sha256 == got["two"].sha256
    assert len(list((tmp_path / "out").glob("*/flash-attn.log"))) == 1
    waited = [name for name, events in told.items() if any("waiting for it" in (event.line or "") for event in events)]
    assert len(waited) <= 1  # none where one was done before the other began


def test_torch_refuses_a_compiler_of_another_cuda_major_version(
    engine: Engine, network: NetworkSettings, tmp_path: Path
) -> None:
    row = replace(LEAN, flash_attn=replace(LEAN.flash_attn, nvcc="11.8"))
    told: list[BuildEvent] = []
    with pytest.raises(BuildFailed) as caught:
        provide(engine, network, row, tmp_path, told)
    assert caught.value.part == "flash-attn"
    assert re.search("The detected CUDA version .* mismatches", "\n".join(caught.value.log))
    assert not any(re.match(r"\[\d+/\d+\] \S+\.(cu|cpp) ", event.line or "") for event in told)  # nothing was compiled
