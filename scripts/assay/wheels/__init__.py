"""The flash-attn wheel of a row: from a wheelhouse, from a release, or compiled with only the kernels asked for."""

from assay.wheels.provide import lookup, provide
from assay.wheels.wheel import Wheel

__all__ = ["Wheel", "lookup", "provide"]
