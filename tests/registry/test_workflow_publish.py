"""The steps of the workflow's publish job, run as they stand there: carry an image, log in, publish, log out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import publish_samples as samples
import servers
import workflow_steps

from assay import keys
from assay.certificate import make_certificate, store
from assay.certificate.statement import TEST_RESULT
from assay.engine import Engine
from assay.findings import Level
from assay.matrix import load
from assay.oci import parse_reference
from assay.registry import Credentials, Registry
from assay.verify import Trust, examine

LINES = workflow_steps.run_lines("build-matrix.yml")


def step(text: str) -> str:
    """Return the one script of the workflow that holds a text."""
    (found,) = [line for line in LINES if text in line]
    return found


def test_the_publish_job(
    tmp_path: Path, engine: Engine, image: Callable[..., str], client: Callable[[str], str]
) -> None:
    client("docker")
    client("docker-registry")
    folder = tmp_path / "registry"
    folder.mkdir()
    key = keys.generate()
    row = load(workflow_steps.ROOT / "matrix.toml").select(["cu121"])[0]
    name = f"assay/{row.id}-workflow-test:latest"
    image_id = image()
    engine.tag(image_id, name)
    given = samples.evidence(row, image_id, level=Level.GPU, tags=(name,))
    out = tmp_path / "work" / "build"
    store.write(out / row.id / store.NAME, make_certificate(given))
    for there in ("matrix.toml", ".github"):
        (tmp_path / "work" / there).symlink_to(workflow_steps.ROOT / there)
    with servers.docker_registry(folder, htpasswd=servers.HTPASSWD) as host:
        environment = {
            "ROW": f"{row.id}-workflow-test",
            "RUNNER_TEMP": str(tmp_path),
            "REGISTRY": host,
            "NAME": "Me/Assay",
            "TOKEN": servers.PASSWORD,
            "ACTOR": servers.USER,
            "ASSAY_KEY": key.pem().decode(),
            "DOCKER_CONFIG": str(tmp_path / "docker"),
            "DOCKER_HOST": os.environ.get("DOCKER_HOST", ""),
        }

        # Signing needs the identity that GitHub gives a workflow; what cosign is asked to sign does not.
        cosign = tmp_path / "tools" / "cosign"
        cosign.parent.mkdir()
        cosign.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/cosign.log\n')
        cosign.chmod(0o755)

        def run(script: str) -> subprocess.CompletedProcess[str]:
            tools = workflow_steps.stand_in(tmp_path / "tools", "--allow-http")
            done = workflow_steps.run(script, tools=tools, environment=environment, cwd=tmp_path / "work")
            assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
            return done

        try:
            run(step("images.py save"))
            (tmp_path / "images").mkdir()
            (tmp_path / "image").rename(tmp_path / "images" / "image-cu121")  # as the artefact travels
            engine.client.images.remove(name)
            run(step("images.py load"))
            assert engine.image_id(name) == image_id
            assert not list((tmp_path / "images").rglob("*.tar.gz")), "no room for both"
            run(step("docker login"))
            published = run(step("assay publish"))
            run(step("cosign sign"))
            run(step("docker logout"))
        finally:
            engine.client.images.remove(name, force=True)
        reference = parse_reference(published.stdout.strip().splitlines()[-1])
        assert reference.repository == "me/assay"
        registry = Registry(host, allow_http=True, credentials=lambda _: Credentials(servers.USER, servers.PASSWORD))
        seen = examine(registry, reference, Trust(keys=(key.public,)))
        assert seen.answer(Level.GPU)[0] == "certified"
        assert set(row.tags) <= set(registry.tags("me/assay"))
    signed, attested, billed = (tmp_path / "cosign.log").read_text().splitlines()
    assert signed == f"sign --yes {reference}"
    kind, _, predicate = attested.removeprefix("attest --yes --type ").partition(" --predicate ")
    assert kind == TEST_RESULT
    assert predicate == f"build/{row.id}/predicate.json {reference}"
    assert billed == f"attest --yes --type cyclonedx --predicate build/{row.id}/sbom.cdx.json {reference}"
    assert json.loads((out / row.id / "sbom.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    publication = json.loads((out / row.id / "publication.json").read_text())
    assert publication["reference"] == str(reference)
    assert json.loads((out / row.id / "predicate.json").read_text())["result"] == "PASSED"
    assert json.loads((tmp_path / "docker" / "config.json").read_text()).get("auths", {}) == {}
