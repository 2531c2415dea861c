"""The flash-attn wheel of a row: from a wheelhouse, from a release, or compiled with only the kernels asked for."""

from assay.wheels.provide import COMPILED, READY_MADE, lookup, made_for, provide
from assay.wheels.wheel import Wheel

__all__ = ["COMPILED", "READY_MADE", "Wheel", "lookup", "made_for", "provide"]
