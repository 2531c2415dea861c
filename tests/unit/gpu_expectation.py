"""What the host tells an image of a row and its GPU, for tests of the checks."""

from checks_package import family

framework = family("framework")
CUDA_121 = {"shipped": "530.30.02", "minimum": "525.60.13"}


def expectation(**changes):
    """Return an expectation of CUDA 12.1.1, with changes."""
    raw = {
        "cuda": {"release": "12.1.1", "driver": CUDA_121},
        "gpu": {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"},
        "gpus": [],
    }
    return framework.Expect({**raw, **changes})
