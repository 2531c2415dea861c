"""The checks in containers of a real engine: images that cannot answer give errors that say why, never a pass."""

from __future__ import annotations

import io
import tarfile

import pytest

from assay import checks
from assay.engine import Engine
from assay.findings import Finding, Level, Status
from assay.matrix.row import Row

pytestmark = pytest.mark.engine
ROW = Row(id="r", expect="certify")


def with_python(engine: Engine, base: str, name: str, script: str) -> None:
    """Put a `python` of our own making into an image."""
    context = io.BytesIO()
    files = {"Dockerfile": f"FROM {base}\nENV PATH=/bin\nCOPY python /bin/python\n", "python": f"#!/bin/sh\n{script}\n"}
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
