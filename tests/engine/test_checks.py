"""The checks in containers of a real engine: images that cannot answer give errors that say why, never a pass."""

from __future__ import annotations

import io
import shutil
import tarfile

import pytest

from assay import checks
from assay.checks import definitions
from assay.engine import Engine
from assay.findings import Finding, Level, Status
from assay.matrix.row import Row

pytestmark = pytest.mark.engine
ROW = Row(id="r", expect="certify")


def with_python(engine: Engine, base: str, name: str, script: str, config: str = "") -> None:
    """Put a `python` of our own making into an image. config: further instructions."""
    context = io.BytesIO()
    files = {
        "Dockerfile": f"FROM {base}\nENV PATH=/bin\nCOPY python /bin/python\n{config}",
        "python": f"#!/bin/sh\n{script}\n",
    }
    with tarfile.open(fileobj=context, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
    context.seek(0)
    engine.client.images.build(fileobj=context, custom_context=True, tag=name, rm=True)


def ask(engine: Engine, image: str, tmp_path) -> list[Finding]:
    return checks.run(engine, image, ROW, level=Level.IMAGE, gpu=None, wheel=None, out=tmp_path)


def test_an_image_without_python_says_so(engine: Engine, base: str, tmp_path) -> None:
    findings = ask(engine, base, tmp_path)
    assert [finding.check for finding in findings] == list(checks.required(ROW, Level.IMAGE))
    assert {finding.status for finding in findings} == {Status.ERROR}
    assert "no `python` on PATH" in findings[0].measured


def test_an_image_that_claims_to_pass_is_not_believed(engine: Engine, base: str, name: str, tmp_path) -> None:
    claim = """echo '{"finding": {"check": "torch.import", "status": "passed"}}'"""
    with_python(engine, base, name, f"{claim}\necho it breaks >&2\nexit 9")
    findings = ask(engine, name, tmp_path)
    assert {finding.status for finding in findings} == {Status.ERROR}
    assert "exit code 9" in findings[0].measured
    assert "it breaks" in findings[0].evidence


def test_the_image_sees_the_checks_and_what_is_expected(engine: Engine, base: str, name: str, tmp_path) -> None:
    with_python(engine, base, name, "ls /opt/assay/checks >&2; cat /opt/assay/expect.json >&2; exit 1")
    evidence = ask(engine, name, tmp_path)[0].evidence
    assert "run.py" in evidence
    assert '"release": "12.1.1"' in evidence


def test_a_user_of_the_images_own_reads_the_checks_of_a_private_checkout(
    engine: Engine, base: str, name: str, tmp_path, monkeypatch
) -> None:
    docker = tmp_path / "docker"
    shutil.copytree(definitions.docker_dir() / "checks", docker / "checks")
    for path in (docker, *docker.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    monkeypatch.setattr(definitions, "docker_dir", lambda: docker)
    script = 'id -u >&2; echo "home $HOME, of the image $ASSAY_HOME" >&2; cat /opt/assay/checks/run.py >&2; exit 1'
    with_python(engine, base, name, script, "ENV HOME=/app\nUSER 1000\n")
    lines = ask(engine, name, tmp_path / "out")[0].evidence.splitlines()
    assert lines[:2] == ["1000", "home /tmp, of the image /app"]
    assert lines[2:] == (docker / "checks/run.py").read_text().splitlines()
    assert [path.name for path in (tmp_path / "out/r").iterdir()] == ["expect.json"]


def test_answers_arrive_while_the_container_runs(engine: Engine, base: str, name: str, tmp_path) -> None:
    answer = '{\\"finding\\": {\\"check\\": \\"torch.import\\", \\"status\\": \\"failed\\"}}'
    with_python(engine, base, name, f'echo "$ASSAY_TOKEN {answer}"; exit 0')
    seen: list[str] = []
    findings = checks.run(
        engine,
        name,
        ROW,
        level=Level.IMAGE,
        gpu=None,
        wheel=None,
        out=tmp_path,
        on_finding=lambda finding: seen.append(finding.check),
    )
    by_check = {finding.check: finding.status for finding in findings}
    assert seen[0] == "torch.import"
    assert by_check.pop("torch.import") is Status.FAILED
    assert set(by_check.values()) == {Status.ERROR}
