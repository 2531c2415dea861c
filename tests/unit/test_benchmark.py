"""The benchmark of drawing: lines take turns, first pictures are not counted, what is asked for is what is drawn."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/benchmark_drawing.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_drawing", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_lines_take_turns_and_warm_ups_are_not_counted(benchmark: ModuleType, tmp_path: Path) -> None:
    lines = [benchmark.Line("one, flash", ("--attention", "flash")), benchmark.Line("one, sdpa", ())]
    drawn: list[tuple[str, ...]] = []

    def draw(arguments: Sequence[str], name: str) -> None:
        drawn.append(tuple(arguments))
        report = {"seconds": [99.0, len(drawn), len(drawn) + 1.0], "peak_bytes": len(drawn) << 30, "device": "H100"}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))

    options = argparse.Namespace(rounds=2, pictures=3, out=tmp_path, steps=7)
    timed = benchmark.time_lines(lines, draw, options)
    pictures = ("--steps", "7", "--pictures", "3")
    flash = ("--attention", "flash", *pictures)
    assert drawn == [flash, pictures, flash, pictures]
    row = benchmark.summary(lines[0], timed["one, flash"])
    assert (row["least"], row["median"], row["most"]) == (1, 2.5, 4.0)
    assert row["peak_bytes"] == 3 << 30
    assert row["device"] == "H100"
    assert benchmark.table([row]).splitlines()[1].split()[-4:] == ["2.5000", "1.0000", "4.0000", "3.00"]


def test_a_machine_without_a_gpu_has_no_peak(benchmark: ModuleType) -> None:
    row = benchmark.summary(benchmark.LINES[-1], [{"seconds": [2.0, 1.0], "peak_bytes": None}])
    assert row["peak_bytes"] is None
    assert benchmark.table([row]).endswith("no GPU")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--host", "--pictures", "1"], 2, "the first warms up"),
        (["--host", "--only", "newbie-4b"], 2, "no line's name contains 'newbie-4b': newbie-3b, flash; "),
        ([], 2, "one of the arguments --image --host is required"),
    ],
)
def test_bad_usage(
    benchmark: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark_drawing.py", *arguments, "--out", str(tmp_path / "out")])
    try:
        found = benchmark.main()
    except SystemExit as stop:
        found = stop.code
    assert found == code
    assert words in capsys.readouterr().err


def test_a_line_that_is_not_drawn_ends_the_run(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark, "ROOT", tmp_path)  # no test.py there
    monkeypatch.setattr(sys, "argv", ["benchmark_drawing.py", "--host", "--out", str(tmp_path / "out")])
    assert benchmark.main() == 1
    assert "a line was not drawn, so there is nothing to compare" in capsys.readouterr().err
    assert not (tmp_path / "out/benchmark.json").exists()
