"""Facts about CUDA releases, torch builds and GPUs: data in the TOML files beside this one, typed and looked up."""

from assay.releases.arch import runs_on
from assay.releases.table import Releases, load
from assay.releases.types import Compiler, CudaRelease, Gpu, TorchBuild

__all__ = ["Compiler", "CudaRelease", "Gpu", "Releases", "TorchBuild", "load", "runs_on"]
