"""Which rows may be published: those whose certificate holds for the image that the engine has now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.certificate import Certificate, RowEvidence, row_json, store
from assay.certificate.cache import NOT_EVIDENCE
from assay.errors import CertificateError, Refused
from assay.findings import MATCHES_ROW, Level, Status
from assay.keys import PublicKey
from assay.matrix.row import Row

ImageId = Callable[[str], str | None]
"""Returns the id of the image that the engine holds under a name or id, None when it holds none."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a certificate must be to be published.

    level: that it must have been made at, at least; None for what each row asks for. key: the public half of the key
    that publishing signs with, None for unsigned publishing. accept_unsigned: with a key, take unsigned certificates
    too and vouch for them with the key. checks_digest, releases_digest: of the checks and the releases table as they
    are now. required: ids of the checks that a row must pass at a level, by those. capability: of a GPU by its name in
    the releases table, `8.0`.
    """

    level: Level | None
    key: PublicKey | None
    checks_digest: str
    releases_digest: str
    required: Callable[[Row, Level], Collection[str]]
    capability: Callable[[str], str]
    accept_unsigned: bool = False

    def level_of(self, row: Row) -> Level:
        """Return the level that a row's certificate must have been made at, at least."""
        return self.level or row.required_level


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row that may be published, with the certificate that says so."""

    row: Row
    certificate: Certificate

    @property
    def evidence(self) -> RowEvidence:
        """The certificate's evidence."""
        return self.certificate.evidence

    @property
    def image_id(self) -> str:
        """The image in the engine."""
        if self.evidence.image is None:
            raise Refused(f"row {self.row.id} has no image")
        return self.evidence.image.id


def select(
    rows: Sequence[Row],
    *,
    named: Collection[str],
    out: Path,
    image_id: ImageId,
    policy: Policy,
    on_line: Callable[[str], None],
) -> list[Candidate]:
    """Return the rows to publish.

    Rows that the matrix expects to be rejected are left out with a line, unless they are among the `named`: those must
    all be publishable. Raises Refused with one line for every row that is not: nothing is published then.
    """
    chosen: list[Candidate] = []
    problems: list[str] = []
    for row in rows:
        if row.expect == "reject" and row.id not in named:
            on_line(f"{row.id}: expected to be rejected, not published")
            continue
        try:
            candidate = Candidate(row=row, certificate=read(row, out))
        except CertificateError as error:
            problems.append(f"{row.id}: {error}")
            continue
        why = objection(candidate, image_id, policy)
        if why:
            problems.append(f"{row.id}: {why}")
        else:
            chosen.append(candidate)
    if problems:
        raise Refused("nothing was published:\n  " + "\n  ".join(problems))
    if not chosen:
        raise Refused("nothing was published: no row of the matrix is to be certified")
    return chosen


def read(row: Row, out: Path) -> Certificate:
    """Return a row's certificate. Raises CertificateError when there is none or it was changed."""
    path = out / row.id / store.NAME
    try:
        return store.read(path)
    except FileNotFoundError as error:
        raise CertificateError(f"{path} does not exist: run `assay matrix --row {row.id}` first") from error


def objection(candidate: Candidate, image_id: ImageId, policy: Policy) -> str:
    """Return why a row may not be published, in one line; empty when it may."""
    for question in (_signature, _verdict, _row, _level, _built, _checks, _gpu, _findings):
        why = question(candidate, policy)
        if why:
            return why
    return _image(candidate, image_id)


def _signature(candidate: Candidate, policy: Policy) -> str:
    certificate = candidate.certificate
    if policy.key is None:
        return (
            f"its certificate is {certificate.signature_text}: give that key with --key" if certificate.signed else ""
        )
    if not certificate.signed:
        return (
            ""
            if policy.accept_unsigned
            else "its certificate is unsigned: sign it when certifying, or --accept-unsigned"
        )
    try:
        certificate.verify(policy.key)
    except CertificateError as error:
        return f"its certificate does not verify: {error}"
    return ""


def _verdict(candidate: Candidate, policy: Policy) -> str:
    verdict = candidate.evidence.verdict
    if not candidate.certificate.certified:
        return f"it is {verdict.verdict}: {verdict.why}"
    if candidate.row.expect != "certify" or not verdict.as_expected:
        return f"it was certified against expectation: {verdict.why or 'the matrix expects a rejection'}"
    return ""


def _row(candidate: Candidate, policy: Policy) -> str:
    recorded, now = candidate.evidence.row, row_json(candidate.row)
    changed = sorted(
        name for name in (recorded.keys() | now.keys()) - NOT_EVIDENCE if recorded.get(name) != now.get(name)
    )
    return f"the row's {', '.join(changed)} changed since it was certified" if changed else ""


def _level(candidate: Candidate, policy: Policy) -> str:
    evidence = candidate.evidence
    asked = policy.level_of(candidate.row)
    if asked is Level.IMAGE or evidence.level is Level.GPU:
        return ""
    return f"it is certified at level {evidence.level.value}, the matrix asks for {asked.value}"


def _gpu(candidate: Candidate, policy: Policy) -> str:
    """Ask that nothing is promised of a GPU that runs other machine code than the one which the row was judged on.

    A run judges on one GPU, and a certificate of level gpu speaks for the compute capability of that one alone.
    """
    evidence, row = candidate.evidence, candidate.row
    if policy.level_of(row) is not Level.GPU or evidence.level is not Level.GPU:
        return ""
    judged = next((one.data.get("capability") for one in evidence.findings if one.check == MATCHES_ROW), None)
    promised = {name: policy.capability(name) for name in row.gpus}
    others = [f"{name} ({capability})" for name, capability in promised.items() if capability != judged]
    if not others:
        return ""
    name = evidence.gpu.name if evidence.gpu else "no GPU"
    several = len(set(promised.values())) > 1
    remedy = "make a row for each compute capability" if several else f"judge it on a GPU like {row.gpus[0]}"
    return (
        f"it was judged on {name} ({judged}), which says nothing of {', '.join(others)}: {remedy}, "
        "or ask for level image (`required-level`)"
    )


def _built(candidate: Candidate, policy: Policy) -> str:
    """Ask for an image that assay built: provenance says of a published one what it was made from."""
    if candidate.evidence.dockerfile_digest is None:
        return "its image was judged by `assay check`, and nobody knows what it was built from: run `assay matrix`"
    return ""


def _checks(candidate: Candidate, policy: Policy) -> str:
    """Ask for the answers to today's questions: whoever made a check stricter wants it asked before publishing."""
    evidence = candidate.evidence
    changed = [
        name
        for name, then, now in (
            ("the checks", evidence.checks_digest, policy.checks_digest),
            ("the releases table", evidence.releases_digest, policy.releases_digest),
        )
        if then != now
    ]
    return f"{' and '.join(changed)} changed since it was certified: run `assay matrix` again" if changed else ""


def _findings(candidate: Candidate, policy: Policy) -> str:
    """Ask the findings themselves: the verdict in a certificate is only as good as what it stands on."""
    evidence = candidate.evidence
    required = set(evidence.required) | set(policy.required(candidate.row, policy.level_of(candidate.row)))
    passed = {finding.check for finding in evidence.findings if finding.status is Status.PASSED}
    missing = sorted(required - passed)
    if missing or not evidence.required:
        return f"its certificate lacks the pass of {', '.join(missing) or 'any required check'}"
    return ""


def _image(candidate: Candidate, image_id: ImageId) -> str:
    image = candidate.evidence.image
    if image is None:
        return "its certificate is about no image"
    if image_id(image.id) != image.id:
        return f"the certified image {image.id[:19]} is no longer in the engine"
    for name in image.tags:
        now = image_id(name)
        if now is not None and now != image.id:
            return f"the image changed since: {name} is {now[:19]} now, certified is {image.id[:19]}"
    return ""
