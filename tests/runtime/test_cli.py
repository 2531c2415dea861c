"""test.py from the outside: what a user types, what comes back, and what is said when it does not work."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ONE = (
    "<character_1>\n<appearance>red_hair, short_hair, blue_eyes</appearance>\n<position>left</position>\n</character_1>"
)


@pytest.fixture
def run(runtime: Path, tmp_path: Path):
    """Return a function that runs test.py of a runtime with the sample model beside it, as a user does."""

    def call(*arguments: str, folder: Path = tmp_path, stdin: str = ""):
        return subprocess.run(
            [sys.executable, str(runtime / "test.py"), *arguments],
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    return call


@pytest.fixture
def run_here(model: Path, tmp_path: Path, monkeypatch, capsys):
    """Return a function that runs test.py in this process, which has torch already."""
    spec = importlib.util.spec_from_file_location("runtime_test_script", ROOT / "docker/runtime/test.py")
    script = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():  # the script sets filters of its own
        spec.loader.exec_module(script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("newbie.weights.default_folder", lambda: model)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["test.py", *arguments])
        try:
            code = script.main()
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return call


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def metadata(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        picture.load()
        return {**picture.text, "size in pixels": f"{picture.width}x{picture.height}"}


def test_without_any_argument_it_draws_two_characters(run, tmp_path):
    done = run()
    assert done.returncode == 0, done.stderr
    assert "sample model: 128 x 128" in done.stdout
    assert "XML with 2 characters" in done.stdout
    assert "s per picture, no GPU, attention: sdpa (" in done.stdout
    assert "wrote picture.png" in done.stdout
    assert done.stderr == ""
    facts = metadata(tmp_path / "picture.png")
    assert facts["size in pixels"] == "128x128"
    assert facts["prompt"].startswith("<character_1>")
    assert facts["seed"] == "0"
    assert facts["torch"].startswith("2.")
    assert {"diffusers", "transformers", "dtype", "attention", "steps", "guidance", "model"} <= set(facts)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".picture")] == []


def test_options_reach_the_picture_and_its_metadata_draws_it_again(run, tmp_path):
    options = ("--steps", "2", "--seed", "11", "--guidance", "1", "--height", "64", "--width", "96", "--dtype", "bf16")
    first = run("--prompt-file", "-", *options, "--output", "a.png", "--report", "a.json", "--pictures", "2", stdin=ONE)
    assert first.returncode == 0, first.stderr
    facts = metadata(tmp_path / "a.png")
    assert facts["size in pixels"] == "96x64"
    assert (facts["prompt"], facts["seed"], facts["dtype"], facts["steps"]) == (ONE, "11", "bf16", "2")
    report = json.loads((tmp_path / "a.json").read_text())
    assert len(report["seconds"]) == 2
    assert all(seconds > 0 for seconds in report["seconds"])
    again = run("--prompt", facts["prompt"], *options, "--output", "b.png")
    assert again.returncode == 0, again.stderr
    assert pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")
    other = run("--prompt", "a red cat", *options, "--output", "c.png")
    assert "prompt: plain text" in other.stdout
    assert pixels(tmp_path / "c.png") != pixels(tmp_path / "a.png")


# options -> (exit code, what stderr says)
WRONG = {
    ("--prompt", "<character_1>\n<hair>red</hair>\n</character_1>"): (2, "line 2: unknown tag <hair>"),
    ("--prompt", " "): (2, "the prompt is empty"),
    ("--prompt-file", "nowhere.xml"): (2, "cannot read nowhere.xml: No such file or directory"),
    ("--height", "100"): (1, "128 x 100 pixels cannot be drawn: width and height are multiples of 16"),
    ("--steps", "-1"): (1, "steps -1 must be 1 to 1000"),
    ("--guidance", "0.5"): (1, "guidance 0.5 must be 1 or more"),
    ("--weights", "nowhere"): (1, "nowhere is no folder"),
    ("--attention", "flash"): (1, "flash-attn runs on NVIDIA GPUs only"),
    ("--device", "cuda"): (1, "no CUDA device: start the container with a GPU (`docker run --gpus all`)"),
    ("--random-weights", "newbie-3b"): (1, "measures a GPU, and none is visible"),
    ("--gpu-profile", "A10", "--dtype", "fp16"): (2, "--gpu-profile A10 draws in bf16, not fp16"),
    ("--seed", "-3"): (2, "--seed must be 0 or more"),
    ("--pictures", "0"): (2, "--pictures must be 1 or more"),
    ("--output", "."): (1, "it is a folder"),
    ("--output", "nowhere/a.png"): (1, "cannot write nowhere/a.png: No such file or directory. Give --output"),
}


@pytest.mark.parametrize("options", WRONG)
def test_what_is_wrong_is_said_in_one_line_without_a_traceback(run_here, tmp_path, options):
    expected, message = WRONG[options]
    code, _, errors = run_here(*options)
    assert (code, message in errors) == (expected, True), errors
    assert "Traceback" not in errors
    assert list(tmp_path.glob("**/*.part")) == []
    assert not (tmp_path / "picture.png").exists()


def test_a_folder_that_cannot_be_written_to_is_noticed_before_drawing(run, tmp_path):
    """As in a container with a read-only root, or one whose user is not root."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    # Root may write anywhere but into the kernel's own file systems.
    done = run(folder=closed if os.geteuid() else Path("/sys"))
    assert done.returncode == 1, done.stdout
    assert re.search(r"cannot write picture\.png: .*\. Give --output a file in a folder that can be", done.stderr)
    assert "per picture" not in done.stdout


def test_profiles_are_for_full_size_weights(run_here):
    code, output, errors = run_here("--gpu-profile", "H100", "--steps", "1")
    assert code == 0, errors
    assert "--gpu-profile H100 are for full-size weights; the sample model keeps its own" in output
    assert "128 x 128, 1 " in output


def test_a_prompt_that_is_too_long_is_said(run_here):
    code, output, errors = run_here("--prompt", "a red cat and " * 400, "--steps", "1")
    assert code == 0, errors
    assert "tokens too long; what comes last is not seen" in output


def test_nothing_is_fetched(run, runtime):
    """A tokenizer that is not there is an error, never a download."""
    (runtime / "sample-model/tokenizer/tokenizer.json").unlink()
    done = run()
    assert done.returncode == 1
    assert "tokenizer.json is missing" in done.stderr
