"""Talk to an OCI registry (distribution specification 1.1); nothing else in the package does.

Credentials are those of `docker login`, credential helpers included. What may pass (5xx, 429, time-outs, broken
connections) is asked for again with growing pauses; everything sent under a digest is checked against it.
"""

from assay.registry.access import Credentials
from assay.registry.client import Registry
from assay.registry.transport import AnswerError

__all__ = ["AnswerError", "Credentials", "Registry"]
