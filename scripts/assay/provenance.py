"""Where an image comes from, in the form of SLSA provenance v1: its row, Dockerfile, base, ingredients and builder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from packageurl import PackageURL

from assay.certificate.evidence import RowEvidence, sha256_hex
from assay.certificate.statement import statement

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:assay:image-build:v1"
"""Meaning: compose the Dockerfile of the row in `externalParameters`, build it with the engine in `builder.version`."""
LOCAL_BUILDER = "urn:assay:builder:local"


def builder_id(environment: Mapping[str, str] = os.environ) -> str:
    """Return who built: the workflow file on GitHub Actions, else a name that promises nothing."""
    workflow = environment.get("GITHUB_WORKFLOW_REF")
    if environment.get("GITHUB_ACTIONS") == "true" and workflow:
        return f"{environment.get('GITHUB_SERVER_URL', 'https://github.com')}/{workflow}"
    return LOCAL_BUILDER


def make(
    evidence: RowEvidence, subjects: list[dict[str, Any]], environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return the in-toto statement of provenance about an image."""
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"row": evidence.row},
            "internalParameters": {"level": evidence.level.value},
            "resolvedDependencies": list(_dependencies(evidence)),
        },
        "runDetails": {
            "builder": {
                "id": builder_id(environment),
                "version": {"assay": evidence.assay_version, "engine": evidence.builder},
            },
            "metadata": {
                **_invocation(environment),
                "startedOn": evidence.started.isoformat(),
                "finishedOn": evidence.finished.isoformat(),
            },
        },
    }
    return statement(subjects, PREDICATE_TYPE, predicate)


def _dependencies(evidence: RowEvidence) -> Iterator[dict[str, Any]]:
    """Yield everything that went in, as in-toto resource descriptors."""
    if evidence.dockerfile_digest:
        yield {"name": "Dockerfile", "digest": {"sha256": sha256_hex(evidence.dockerfile_digest)}}
    base: dict[str, Any] = {"name": "base", "uri": _image_purl(str(evidence.row["base"]))}
    if evidence.base_digest:
        base["digest"] = {"sha256": sha256_hex(evidence.base_digest)}
    yield base
    for one in evidence.ingredients:
        notes = {"version": one.version, "source": one.source, "compiler": one.compiler}
        descriptor: dict[str, Any] = {
            "name": one.name,
            "uri": PackageURL("generic", None, one.name, one.version).to_string(),
            "annotations": {key: value for key, value in notes.items() if value},
        }
        if one.sha256:
            descriptor["digest"] = {"sha256": sha256_hex(one.sha256)}
        yield descriptor


def _image_purl(reference: str) -> str:
    """Return an image reference as a package URL, `pkg:docker/debian@bookworm`."""
    place, _, digest = reference.partition("@")
    path, colon, tag = place.rpartition(":")
    if not colon or "/" in tag:
        path, tag = place, "latest"
    namespace, _, name = path.rpartition("/")
    return PackageURL("docker", namespace or None, name, digest or tag).to_string()


def _invocation(environment: Mapping[str, str]) -> dict[str, str]:
    run = environment.get("GITHUB_RUN_ID")
    if environment.get("GITHUB_ACTIONS") != "true" or not run:
        return {}
    server = environment.get("GITHUB_SERVER_URL", "https://github.com")
    attempt = environment.get("GITHUB_RUN_ATTEMPT", "1")
    repository = environment.get("GITHUB_REPOSITORY", "")
    return {"invocationId": f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}"}
