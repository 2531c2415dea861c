"""The checks of `docker/checks`, seen from the host: which there are, what a row must pass, how they are run."""

from assay.checks.definitions import Check, digest, registry, required
from assay.checks.expectations import expectation
from assay.checks.run import run

__all__ = ["Check", "digest", "expectation", "registry", "required", "run"]
