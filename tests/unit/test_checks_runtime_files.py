"""`runtime.unmodified`: a changed, missing or added file of the runtime is found by name."""

from __future__ import annotations

import sys
from hashlib import sha256

import pytest

from assay import checks
from assay.compose.context import runtime_files
from assay.matrix.row import Row
from assay.paths import docker_dir

checks.registry()
compare = sys.modules["assay_checks.runtime_files"].compare


@pytest.fixture
def baked(tmp_path):
    (tmp_path / "newbie").mkdir()
    (tmp_path / "test.py").write_text("print()")
    (tmp_path / "newbie" / "model.bin").write_bytes(b"weights")
    hashes = {
        path.relative_to(tmp_path).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    return tmp_path, hashes


def test_the_files_that_were_baked_in_pass_and_bytecode_is_nobodys(baked):
    folder, hashes = baked
    (folder / "newbie" / "__pycache__").mkdir()
    (folder / "newbie" / "__pycache__" / "a.pyc").write_bytes(b"x")
    answer = compare(hashes, str(folder))
    assert answer.status == "passed"
    assert answer.data["files"] == 2


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "newbie" / "model.bin").write_bytes(b"weightz"), "newbie/model.bin was changed"),
        (lambda folder: (folder / "test.py").unlink(), "test.py is missing"),
        (lambda folder: (folder / "extra.py").write_text(""), "extra.py was not baked in"),
    ],
)
def test_each_change_is_named(baked, damage, told):
    folder, hashes = baked
    damage(folder)
    answer = compare(hashes, str(folder))
    assert answer.status == "failed"
    assert told in answer.evidence


def test_the_host_lists_the_model_and_no_bytecode():
    files = runtime_files(Row(id="cu121", expect="certify"), docker_dir())
    assert "test.py" in files
    assert any(path.startswith("sample-model/") and path.endswith(".safetensors") for path in files)
    assert not any("__pycache__" in path for path in files)


def test_every_family_of_checks_has_its_file():
    families = sys.modules["assay_checks.families"]
    missing = [name for name in families.FAMILIES if f"assay_checks.{name}" not in sys.modules]
    assert missing == []


def test_what_the_context_leaves_out_is_not_expected_in_the_image(tmp_path):
    runtime = tmp_path / "runtime"
    for path in ("test.py", "newbie/a.py", ".cache/left.py", "newbie/__pycache__/a.pyc", "old.pyc"):
        (runtime / path).parent.mkdir(parents=True, exist_ok=True)
        (runtime / path).write_text("")
    assert list(runtime_files(Row(id="cu121", expect="certify"), tmp_path)) == ["newbie/a.py", "test.py"]
