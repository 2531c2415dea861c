"""The article's claims: each as data (`claims.toml`), each with the function that measures it on this machine."""

from assay.claims.table import Claim, Line, exit_code, load, measure_all

__all__ = ["Claim", "Line", "exit_code", "load", "measure_all"]
