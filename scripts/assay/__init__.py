"""assay: build a matrix of CUDA images, prove which combinations work, publish only those."""

__version__ = "0.1.0"
