"""Asks uv which versions and files satisfy requirements, in the package indexes that this machine is set to."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from assay.errors import IngredientError
from assay.index_settings import addresses
from assay.network import NetworkSettings
from assay.pinned import PLATFORM
from assay.requirements import parse


def pins(text: str) -> dict[str, str]:
    """Return name -> version of everything that a requirements file pins with `==`."""
    found, _ = parse(text)
    return {pin.name: pin.version for pin in found}


def resolve(
    requirements: str, python: str, *, constraints: Path | None = None, keep: str = "", newer_too: bool = False
) -> str:
    """Return the requirements pinned by version and hash.

    constraints: a lock whose versions hold, and whose packages are left out. keep: the lock as it was; what it holds is
    preferred to what is newer. newer_too: for every Python from that one on, not for that one alone.
    Raises IngredientError with uv's own message when the index cannot satisfy them, or when uv is missing.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise IngredientError("uv is not on PATH; install it with `python3 -m pip install uv`")
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "requirements.in"), Path(scratch, "requirements.txt")
        source.write_text(requirements, encoding="utf-8")
        target.write_text(keep, encoding="utf-8")
        command = [uv, "pip", "compile", str(source), "--output-file", str(target), "--quiet", "--generate-hashes"]
        command += ["--no-config", "--no-header", "--no-annotate", "--only-binary", ":all:"]
        command += ["--python-version", python]
        command += ["--universal"] if newer_too else ["--python-platform", PLATFORM]
        if constraints:
            command += ["--constraints", str(constraints)]
            for name in pins(constraints.read_text(encoding="utf-8")):
                command += ["--no-emit-package", name]
        answer = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
        if answer.returncode:
            raise IngredientError(f"uv says\n{answer.stderr.strip()}")
        lines = target.read_text(encoding="utf-8").splitlines()
    # uv tells at the end which packages --no-emit-package left out; the first line already does.
    return "\n".join(line for line in lines if not line.startswith("#")).strip() + "\n"


def _environment() -> dict[str, str]:
    """Return the environment for uv: what is set for uv itself, and pip's settings and the CA bundle besides.

    Unlike in builds, where a hash says which file it is, an index that has a package is the only one asked for it.
    """
    network = NetworkSettings.from_host()
    bundle = {"SSL_CERT_FILE": str(network.ca_bundle)} if network.ca_bundle else {}
    ours = network.index_variables()
    joined = {}
    if (named := os.environ.get("UV_INDEX")) and (found := ours.get("UV_INDEX")):
        # As it stands: an index may have a name there, on which its credentials hang. What else there is comes behind.
        others = [address for address in found.split() if address not in addresses(named)]
        joined["UV_INDEX"] = " ".join([named, *others])
    return {**ours, **bundle, **os.environ, **joined}
