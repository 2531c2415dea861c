"""Say whether an image in a registry is certified, for which GPU, and by which key.

exit codes: 0 certified; 1 not certified, or revoked; 2 bad usage; 3 it cannot be said: no key was given to check the
signature with, or the registry does not answer.
"""

from __future__ import annotations

import argparse
import json

from assay.commands.registry_options import add_allow_http, add_trust, registry_of, say, trust_of
from assay.errors import CertificateError, ExitCode
from assay.findings import Level, gpus_not_judged
from assay.oci import parse_reference
from assay.verify import Answer, Attested, examine

_EXIT_CODES: dict[Answer, ExitCode] = {
    "certified": ExitCode.AS_EXPECTED,
    "not certified": ExitCode.NOT_AS_EXPECTED,
    "revoked": ExitCode.NOT_AS_EXPECTED,
    "unknown": ExitCode.INCONCLUSIVE,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("image", metavar="IMAGE", help="HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]")
    add_trust(parser)
    add_allow_http(parser)
    parser.add_argument(
        "--level", choices=("image", "gpu"), default="image", help="level to ask for (default: %(default)s)"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="what to print (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Look the image up and print the answer."""
    reference = parse_reference(args.image)
    level = Level(args.level)
    try:
        seen = examine(registry_of(reference.host, args), reference, trust_of(args))
    except CertificateError as error:
        say(f"not certified: {error}")
        return ExitCode.NOT_AS_EXPECTED
    answer, why = seen.answer(level)
    standing = seen.standing(level)
    if args.format == "json":
        content = {
            "image": str(seen.reference),
            "answer": answer,
            "why": why,
            "certificates": [_json(one) for one in standing],
        }
        print(json.dumps(content, indent=2))
    else:
        print(f"{seen.reference}\n  {answer}: {why}")
        for one in standing[1:]:
            print(f"  also: {one.summary}")
    for problem in seen.problems:
        say(problem)
    return _EXIT_CODES[answer]


def _json(one: Attested) -> dict[str, object]:
    evidence = one.certificate.evidence.to_json()
    return {
        "row": one.certificate.evidence.row_id,
        "level": evidence["level"],
        "gpu": evidence["gpu"],
        "gpus_not_judged": gpus_not_judged(one.certificate.evidence.findings),
        "finished": evidence["finished"],
        "signed_by": one.keyid or None,
    }
