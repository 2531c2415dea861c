"""Signatures without a key, by the identity that GitHub gives a workflow: cosign makes and checks them."""

from __future__ import annotations

import shlex

from assay.certificate.dsse import Envelope
from assay.certificate.statement import TEST_RESULT

WORKFLOW = ".github/workflows/build-matrix.yml"
"""The workflow that publishes, and so signs."""

ISSUER = "https://token.actions.githubusercontent.com"
"""Who vouches for a workflow's identity."""


def identity(repository: str = "OWNER/REPOSITORY", branch: str = "main") -> str:
    """Return the name that the publishing workflow signs under: its file, as it is on the default branch."""
    return f"https://github.com/{repository}/{WORKFLOW}@refs/heads/{branch}"


def unnamed(envelope: Envelope) -> bool:
    """Tell whether nothing in an envelope names a key: it is unsigned, or signed by a workflow or by cosign itself."""
    return not any(one.keyid for one in envelope.signatures)


def how_to_check(image: str) -> str:
    """Return the end of a message about a certificate whose signature no key can check. image: its reference."""
    command = ["cosign", "verify-attestation", "--type", TEST_RESULT]
    command += ["--certificate-oidc-issuer", ISSUER, "--certificate-identity", identity(), image]
    return (
        f"where the publishing workflow signed the image without a key, cosign checks that: `{shlex.join(command)}`, "
        'with its repository and default branch (README, "Publish")'
    )
