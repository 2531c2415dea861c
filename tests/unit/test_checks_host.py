"""The checks seen from the host: what a row must pass, what the image is told, what an answer that never came is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from checks_package import FOLDER

from assay import checks, releases
from assay.checks import definitions
from assay.checks.run import Listener, ending, for_all_to_read, unanswered
from assay.engine import ContainerResult
from assay.errors import AssayError, EngineError
from assay.files import write_json
from assay.findings import Finding, Level, Status
from assay.matrix.row import FlashAttn, Requirements, Row
from assay.wheels import Wheel

ROW = Row(id="cu121", expect="certify")
OF_THE_DESIGN = {
    "toolkit.version",
    "toolkit.matches-torch",
    "torch.import",
    "torch.version",
    "libraries.resolved",
    "libraries.origin",
    "packages.consistent",
    "files.unmodified",
    "flash-attn.import",
    "flash-attn.version",
    "flash-attn.kernels",
}


def expectation(row: Row = ROW, wheel: Wheel | None = None):
    return checks.expectation(row, level=Level.IMAGE, wheel=wheel, releases=releases.load(), gpu=None, seed=7)


def test_every_check_of_the_design_is_required_at_image_level():
    assert set(checks.required(ROW, Level.IMAGE)) >= OF_THE_DESIGN


def test_gpu_level_asks_everything_of_image_level_and_more():
    image, gpu = (set(checks.required(ROW, level)) for level in (Level.IMAGE, Level.GPU))
    assert gpu > image
    assert {check for check in gpu - image if checks.registry()[check].level != "gpu"} == set()


@pytest.mark.parametrize(
    ("row", "absent"),
    [
        (dataclasses.replace(ROW, flash_attn=FlashAttn(source="none")), "flash-attn."),
        (dataclasses.replace(ROW, toolkit="none"), "toolkit."),
        (dataclasses.replace(ROW, gpus=()), "torch.kernels"),
        (dataclasses.replace(ROW, torch="base"), "python."),
    ],
)
def test_what_a_row_does_not_have_is_not_asked(row, absent):
    assert any(check.startswith(absent) for check in checks.required(ROW, Level.GPU))
    assert not any(check.startswith(absent) for check in checks.required(row, Level.GPU))


def test_a_check_needs_only_what_is_asked_with_it():
    required = checks.required(ROW, Level.GPU)
    for check in required:
        assert all(required.index(need) < required.index(check) for need in checks.registry()[check].needs)


def test_the_image_is_told_the_release_the_locks_and_the_gpus():
    told = expectation()
    assert told["cuda"]["release"] == "12.1.1"
    assert told["cuda"]["components"]["cublas"] == "12.1.3.1"
    assert told["torch"]["cxx11_abi"] is False
    assert told["torch"]["locked"]["nvidia-nvjitlink-cu12"] == "12.1.105"
    assert "einops" in told["torch"]["locked"]
    assert told["libraries"]["libnvJitLink.so.12"] == "nvidia-nvjitlink-cu12"
    assert [(gpu["name"], gpu["capability"]) for gpu in told["gpus"]] == [("A100", "8.0")]
    assert told["seed"] == 7
    assert json.loads(json.dumps(told)) == told


def test_locks_are_those_of_the_row():
    without_runtime = expectation(dataclasses.replace(ROW, runtime="none"))["torch"]["locked"]
    assert "diffusers" not in without_runtime
    assert "torch" in without_runtime
    of_base = expectation(dataclasses.replace(ROW, torch="base"))
    assert of_base["torch"] == {"version": None, "cuda": "12.1", "cxx11_abi": None, "archs": None, "locked": {}}
    assert of_base["libraries"] == {}


def test_what_the_row_adds_counts_as_locked():
    own = Requirements(path="r.txt", sha256="0" * 64, packages=(("bottle", "0.13.4"),))
    told = expectation(dataclasses.replace(ROW, requirements=own))
    assert told["requirements"] == {"bottle": "0.13.4"}
    assert told["torch"]["locked"] == {**expectation()["torch"]["locked"], "bottle": "0.13.4"}
    of_base = expectation(dataclasses.replace(ROW, torch="base", requirements=own))
    assert (of_base["torch"]["locked"], of_base["requirements"]) == ({}, {"bottle": "0.13.4"})
    assert expectation()["requirements"] == {}


def test_the_image_is_told_what_is_in_the_wheel():
    wheel = Wheel(
        path=Path("/w/flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl"),
        sha256="ab" * 32,
        source="wheelhouse",
        compiler=None,
        archs=("80",),
        version="2.8.3",
        files={"flash_attn/__init__.py": "cd" * 32},
    )
    assert expectation(wheel=wheel)["flash_attn"]["wheel"] == {
        "filename": "flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl",
        "sha256": "ab" * 32,
        "files": {"flash_attn/__init__.py": "cd" * 32},
    }


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of docker/checks that the host takes for the real one."""
    folder = tmp_path / "docker/checks"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(definitions, "docker_dir", lambda: tmp_path / "docker")
    return folder


def test_the_digest_covers_names_and_contents_but_no_caches(copy):
    seen = {checks.digest()}
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__/x.pyc").write_bytes(b"x")
    assert checks.digest() in seen
    (copy / "elf.py").write_text("# changed\n")
    seen.add(checks.digest())
    (copy / "elf.py").rename(copy / "elf2.py")
    seen.add(checks.digest())
    (copy / "prints").mkdir()
    (copy / "prints/a.json").write_text("{}")
    seen.add(checks.digest())
    assert len(seen) == 4


def test_a_broken_family_stops_the_host(copy, monkeypatch):
    (copy / "packages.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.setattr(definitions, "PACKAGE", "assay_checks_of_a_test")
    with pytest.raises(AssayError, match=r"packages\.py: ModuleNotFoundError.*no_such_module_anywhere"):
        definitions.registry.__wrapped__()


def test_a_missing_family_stops_the_host(copy, monkeypatch):
    (copy / "sample.py").unlink()
    monkeypatch.setattr(definitions, "PACKAGE", "assay_checks_of_another_test")
    with pytest.raises(AssayError, match=r"lacks sample\.py: assay's checks are not installed completely"):
        definitions.registry.__wrapped__()


def test_the_copy_of_the_checks_is_whole_for_all_to_read_and_gone_afterwards(copy, tmp_path):
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (tmp_path / "row").mkdir()
    with for_all_to_read(copy, tmp_path / "row") as readable:
        names = {path.relative_to(readable).as_posix() for path in readable.rglob("*")}
        assert names == {path.relative_to(copy).as_posix() for path in copy.rglob("*")}
        assert (readable / "run.py").read_bytes() == (copy / "run.py").read_bytes()
        assert readable.stat().st_mode & 0o777 == 0o755
        assert {path.stat().st_mode & 0o777 for path in readable.rglob("*.py")} == {0o644}
    assert list((tmp_path / "row").iterdir()) == []


def line(listener: Listener, **event) -> str:
    return f"{listener.token} {json.dumps(event)}"


def finding(check: str, status: str = "passed"):
    return Finding(check=check, status=Status(status)).to_json()


def test_only_lines_with_the_token_are_answers():
    heard = []
    listener = Listener("secret", ["a.a", "a.b"], heard.append)
    listener.hear(json.dumps({"finding": finding("a.a")}))
    listener.hear("guess " + json.dumps({"finding": finding("a.a")}))
    listener.hear("secret {broken")
    listener.hear("secret 7")
    listener.hear("secret " + json.dumps({"finding": {"check": "a.a", "status": "fine"}}))
    assert listener.findings == {}
    listener.hear(line(listener, finding=finding("a.a", "failed")))
    listener.hear(line(listener, finding=finding("a.a", "passed")))  # the first answer stands
    listener.hear(line(listener, finding=finding("a.z")))  # nobody asked
    assert [(entry.check, entry.status) for entry in heard] == [("a.a", Status.FAILED)]


def test_what_begins_is_told_while_it_runs_if_it_was_asked():
    heard = []
    listener = Listener("secret", ["a.a"], on_started=heard.append)
    for line in ('secret {"started": "a.a"}', 'secret {"started": "b.b"}', 'wrong {"started": "a.a"}'):
        listener.hear(line)
    assert heard == ["a.a"]


def test_a_number_that_is_none_is_told_in_words():
    listener = Listener("secret", ["a.a"])
    listener.hear(
        'secret {"finding": {"check": "a.a", "status": "failed", "data": {"error": NaN, "worst": -Infinity}}}'
    )
    assert listener.findings["a.a"].data == {"error": "NaN", "worst": "-Infinity"}


def test_a_file_name_that_is_no_utf_8_is_told_all_the_same(tmp_path):
    listener = Listener("secret", ["a.a"])
    listener.hear(line(listener, finding={**finding("a.a", "failed"), "evidence": "caf\udce9.so is in no RECORD"}))
    told = listener.findings["a.a"]
    assert told.evidence == "caf\\udce9.so is in no RECORD"
    write_json(tmp_path / "findings.json", told.to_json())


def ended(**changes) -> ContainerResult:
    values = {
        "exit_code": 0,
        "stdout_tail": (),
        "stderr_tail": ("last words",),
        "timed_out": False,
        "oom_killed": False,
    }
    return ContainerResult(**{**values, "seconds": 3.0, **changes})


@pytest.mark.parametrize(
    ("result", "how"),
    [
        (ended(exit_code=137, oom_killed=True), "memory limit"),
        (ended(exit_code=137, timed_out=True), "time limit was reached after 3 s"),
        (ended(exit_code=127), "`python` could not be started (exit code 127)"),
        (ended(exit_code=1), "exit code 1"),
        (EngineError('exec: "python": executable file not found in $PATH'), "no `python` on PATH"),
        (EngineError("connection refused"), "the engine failed"),
    ],
)
def test_the_ending_is_told(result, how):
    assert how in ending(result)[0]


def test_every_check_without_an_answer_is_an_error_with_why():
    asked = ("torch.import", "files.unmodified", "libraries.resolved", "packages.consistent")
    listener = Listener("secret", asked)
    listener.hear(line(listener, broken={"family": "packages", "evidence": "Traceback: bad"}))
    listener.hear(line(listener, finding=finding("torch.import")))
    listener.hear(line(listener, started="files.unmodified"))
    registry = checks.registry()
    found = unanswered([registry[check] for check in asked], listener, ended(exit_code=137, oom_killed=True))
    assert {entry.check: entry.measured for entry in found} == {
        "files.unmodified": "the container ended while this check ran: its memory limit was reached",
        "libraries.resolved": "the container ended before this check: its memory limit was reached",
        "packages.consistent": "packages.py cannot be imported by the image's Python",
    }
    assert {entry.status for entry in found} == {Status.ERROR}
    assert found[0].evidence == "last words"


@pytest.mark.parametrize("name", definitions.JUDGING)
def test_the_digest_covers_what_the_host_asks_and_how_it_judges(copy, monkeypatch, tmp_path, name):
    before = checks.digest()
    package = tmp_path / "assay"
    for judging in definitions.JUDGING:
        (package / judging).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(definitions.__file__).parents[1] / judging, package / judging)
    monkeypatch.setattr(definitions, "__file__", str(package / "checks/definitions.py"))
    assert checks.digest() == before
    (package / name).write_text("# changed\n")
    assert checks.digest() != before
