"""What `assay verify` makes of signatures: by a key that it was given, by none, and by a workflow's identity."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import publish_samples as samples
import workflow_steps

from assay import keyless, keys, oci
from assay.certificate import Certificate, make_certificate
from assay.certificate.dsse import ENVELOPE_MEDIA_TYPE, Envelope, Signature
from assay.certificate.record import about_manifest
from assay.certificate.statement import TEST_RESULT
from assay.findings import Level
from assay.oci import Manifest, parse_reference
from assay.publish.attachments import CERTIFICATE_TYPE
from assay.verify import Examination, Trust, examine

IMAGE = parse_reference("registry.invalid/me/newbie:latest")
KEY = keys.generate()
CONFIG = oci.descriptor(oci.IMAGE_CONFIG, b"{}")
MANIFEST = oci.image(CONFIG, [])


class InMemoryRegistry:
    """A registry with one image, and with what is attached to it: by the registry's own list, and in cosign's image."""

    host = "registry.invalid"

    def __init__(self, listed: list[bytes], cosign: list[bytes]) -> None:
        self.blobs = {oci.digest_of(data): data for data in [*listed, *cosign]}
        artifacts = [oci.artifact(CERTIFICATE_TYPE, [oci.descriptor(ENVELOPE_MEDIA_TYPE, data)]) for data in listed]
        self.listed = [{**one.descriptor(), "artifactType": CERTIFICATE_TYPE} for one in artifacts]
        attestations = oci.image(CONFIG, [oci.descriptor(ENVELOPE_MEDIA_TYPE, data) for data in cosign])
        self.manifests = {one.digest: one for one in artifacts}
        self.manifests |= {"latest": MANIFEST, f"{oci.referrers_tag(MANIFEST.digest)}.att": attestations}

    def manifest(self, _repository: str, target: str) -> Manifest | None:
        return self.manifests.get(target)

    def referrers(self, _repository: str, _digest: str) -> list[dict[str, Any]]:
        return self.listed

    def blob(self, _repository: str, digest: str) -> bytes:
        return self.blobs[digest]


def certificate(key: keys.SigningKey | None) -> Certificate:
    made = make_certificate(samples.evidence(samples.row(), CONFIG["digest"]), key)
    return about_manifest(made, IMAGE.repository, MANIFEST.digest, key)


def by_workflow() -> bytes:
    """Return the attestation that `cosign attest` makes of a predicate, by a key of the moment that nobody names."""
    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": TEST_RESULT,
        "subject": [{"name": IMAGE.name, "digest": {"sha256": MANIFEST.digest.removeprefix("sha256:")}}],
        "predicate": certificate(None).statement["predicate"],
    }
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    envelope = {"payloadType": "application/vnd.in-toto+json", "payload": payload}
    return json.dumps({**envelope, "signatures": [{"keyid": "", "sig": "c2ln"}]}).encode()


def seen(trust: Trust, *listed: bytes, cosign: tuple[bytes, ...] = ()) -> Examination:
    return examine(InMemoryRegistry(list(listed), list(cosign)), IMAGE, trust)  # type: ignore[arg-type]


def test_the_gpus_of_the_row_that_were_not_judged_are_named() -> None:
    evidence = samples.evidence(samples.row(gpus=("A100", "H100")), CONFIG["digest"], level=Level.GPU)
    found = tuple(
        replace(one, data={"not_judged": ["H100 (9.0)"]}) if one.check == "gpu.matches-row" else one
        for one in evidence.findings
    )
    made = about_manifest(make_certificate(replace(evidence, findings=found)), IMAGE.repository, MANIFEST.digest, None)
    answer, why = seen(Trust(allow_unsigned=True), made.envelope.to_bytes()).answer(Level.GPU)
    assert answer == "certified"
    assert "level gpu on NVIDIA A100-SXM4-40GB, driver 580.159.04 (not judged: H100 (9.0)), 2026" in why


def test_a_statement_without_end_does_not_hide_the_others() -> None:
    endless = Envelope("application/vnd.in-toto+json", b"[" * 200_000)
    found = seen(Trust(allow_unsigned=True), endless.to_bytes(), certificate(None).envelope.to_bytes())
    assert found.answer()[0] == "certified"


def test_an_unsigned_certificate_says_how_a_workflows_signature_is_checked() -> None:
    found = seen(Trust(), certificate(None).envelope.to_bytes())
    answer, why = found.answer()
    assert answer == "not certified"
    assert "it is unsigned; --allow-unsigned takes the registry's word for it" in why
    assert f"cosign verify-attestation --type {TEST_RESULT} " in why
    assert why.count(str(found.reference)) == 1
    assert "@sha256:" in str(found.reference)
    assert seen(Trust(allow_unsigned=True), certificate(None).envelope.to_bytes()).answer()[0] == "certified"


def test_a_workflows_attestation_is_left_to_cosign_and_does_not_stand_in_a_keys_way() -> None:
    alone = seen(Trust(), cosign=(by_workflow(),))
    assert alone.answer()[0] == "not certified"
    assert "by no key that assay could know; where the publishing workflow" in alone.answer()[1]
    both = seen(Trust(keys=(KEY.public,)), certificate(KEY).envelope.to_bytes(), cosign=(by_workflow(),))
    assert both.answer()[0] == "certified"
    assert ["not believed" in problem for problem in both.problems] == [False]


def test_a_signature_that_names_its_key_asks_for_that_key() -> None:
    answer, why = seen(Trust(), certificate(KEY).envelope.to_bytes()).answer()
    assert answer == "unknown"
    assert why.endswith(f"signed by key {KEY.public.keyid[:16]}: give --key to check it")
    other = seen(Trust(keys=(keys.generate().public,)), certificate(KEY).envelope.to_bytes())
    assert "not believed: no signature of it fits" in other.answer()[1]
    assert "cosign" not in other.answer()[1]


def test_a_signature_that_names_none_may_be_by_a_key_all_the_same() -> None:
    """cosign with a key names none either."""
    envelope = certificate(KEY).envelope
    nameless = replace(envelope, signatures=tuple(Signature("", one.sig) for one in envelope.signatures))
    assert isinstance(nameless, Envelope)
    answer, why = seen(Trust(), nameless.to_bytes()).answer()
    assert answer == "unknown"
    assert "signed without naming a key: give --key to check it, or, where the publishing workflow" in why
    assert seen(Trust(keys=(KEY.public,)), nameless.to_bytes()).answer()[0] == "certified"


def test_the_readme_gives_the_commands_for_what_the_workflow_signs() -> None:
    workflow = (workflow_steps.ROOT / keyless.WORKFLOW).read_text(encoding="utf-8")
    readme = (workflow_steps.ROOT / "README.md").read_text(encoding="utf-8")
    publish = re.sub(r"\\\n\s*", "", readme.partition("\n## Publish")[2].partition("\n## ")[0])
    types = set(re.findall(r"cosign attest --yes --type (\S+)", workflow))
    assert TEST_RESULT in types
    commands = [line.split() for line in publish.splitlines() if line.lstrip().startswith("cosign verify")]
    asked = {words[words.index("--type") + 1] for words in commands if words[1] == "verify-attestation"}
    assert asked == types
    assert [words[1] for words in commands].count("verify") == 1
    for words in commands:
        assert words[words.index("--certificate-oidc-issuer") + 1] == keyless.ISSUER
        assert words[words.index("--certificate-identity") + 1] == '"$IDENTITY"'
    assert f"IDENTITY={keyless.identity('you/newbie-image')}" in publish
    assert Path(keyless.WORKFLOW).name in publish
