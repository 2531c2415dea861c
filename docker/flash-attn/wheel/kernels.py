"""Which of flash-attn's kernels a wheel holds, and the source that stands in for the others.

flash-attn compiles each kernel family (forward, split-KV forward, backward) for each head dim, type and mask in a file
of its own; the C++ linker then wants every one of them. A lean wheel compiles some of the files, and defines the
functions of the others in one small source that says, when called, what the wheel holds instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = Path(__file__).with_name("absent_kernels.cpp.in")
ABSENT_NAME = "absent_kernels.cpp"

UNIT_NAME = re.compile(
    r"flash_(?P<family>fwd|fwd_split|bwd)_hdim(?P<head_dim>\d+)_(?P<dtype>bf16|fp16)(?P<causal>_causal)?_sm80\.cu"
)

# The function template that a file specialises, and its parameters' type, by family (flash.h of flash-attn 2.8.3).
FUNCTIONS: dict[str, tuple[str, str]] = {
    "fwd": ("run_mha_fwd_", "Flash_fwd_params"),
    "fwd_split": ("run_mha_fwd_splitkv_dispatch", "Flash_fwd_params"),
    "bwd": ("run_mha_bwd_", "Flash_bwd_params"),
}
TYPES: dict[str, str] = {"bf16": "cutlass::bfloat16_t", "fp16": "cutlass::half_t"}
WORDS: dict[str, str] = {"fwd": "forward", "fwd_split": "split-KV forward", "bwd": "backward"}

# What flash-attn leaves out when FLASHATTENTION_DISABLE_... is defined. Inference needs none of it.
LEFT_OUT = ("BACKWARD", "DROPOUT", "ALIBI", "SOFTCAP", "LOCAL")
MACROS = tuple(f"FLASHATTENTION_DISABLE_{feature}" for feature in LEFT_OUT)

NO_KERNELS = "assay.nokernels"
"""Local version of a wheel that was built without any kernel."""


@dataclass(frozen=True)
class Unit:
    """One kernel file. family: a key of `FUNCTIONS`. path: as setup.py names it."""

    path: str
    family: str
    head_dim: int
    dtype: str
    causal: bool


@dataclass(frozen=True)
class Asked:
    """What the wheel shall hold: forward and split-KV forward, causal and not. Archs as CUDA writes them: `80`."""

    head_dims: tuple[int, ...]
    dtypes: tuple[str, ...]
    archs: tuple[str, ...]

    @property
    def local_version(self) -> str:
        """Return the local part of the wheel's version, which says what is in (PEP 440).

        >>> Asked((128, 64), ("bf16",), ("80", "90")).local_version
        'assay.hd64.128.bf16.sm80.90.fwd'
        """
        dims = ".".join(str(head_dim) for head_dim in sorted(self.head_dims))
        archs = ".".join(sorted(self.archs, key=int))
        return f"assay.hd{dims}.{'.'.join(sorted(self.dtypes))}.sm{archs}.fwd"

    def holds(self, unit: Unit) -> bool:
        """Say whether a kernel file belongs into the wheel."""
        return unit.family != "bwd" and unit.head_dim in self.head_dims and unit.dtype in self.dtypes

    def __str__(self) -> str:
        dims = ", ".join(str(head_dim) for head_dim in self.head_dims)
        archs = " and ".join(f"sm_{arch}" for arch in self.archs)
        return f"the forward kernels of head dim {dims} in {' and '.join(self.dtypes)} for {archs}"


def split(sources: Iterable[str], asked: Asked) -> tuple[list[str], list[Unit]]:
    """Split setup.py's sources into those to compile and the kernel files that are left out.

    Files that are no kernel files (the API) are compiled. Raises ValueError when setup.py has no file for something
    that was asked for: a wheel without it would be built, and would fail only when it is used.
    """
    kept: list[str] = []
    absent: list[Unit] = []
    held = set()
    for source in sources:
        match = UNIT_NAME.fullmatch(Path(source).name)
        if match is None:
            kept.append(source)
            continue
        unit = Unit(source, match["family"], int(match["head_dim"]), match["dtype"], match["causal"] is not None)
        if asked.holds(unit):
            kept.append(source)
            held.add((unit.family, unit.head_dim, unit.dtype, unit.causal))
        else:
            absent.append(unit)
    wanted = {
        (family, head_dim, dtype, causal)
        for family in ("fwd", "fwd_split")
        for head_dim in asked.head_dims
        for dtype in asked.dtypes
        for causal in (False, True)
    }
    missing = sorted(wanted - held)
    if missing:
        have = sorted({unit.head_dim for unit in absent} | {head_dim for _, head_dim, _, _ in held})
        raise ValueError(
            f"this flash-attn has no file for {missing[0]} and {len(missing) - 1} more; its head dims are {have}, "
            f"its types {sorted(TYPES)}"
        )
    return kept, absent


def absent_source(absent: Iterable[Unit], asked: Asked, version: str) -> str:
    """Return the C++ source that defines the functions of the files left out: each raises an error that says so.

    version: as the wheel carries it.
    """
    definitions = "\n".join(
        'ABSENT({function}, {parameters}, {type}, {head_dim}, {causal}, "{words}", "{dtype}")'.format(
            function=FUNCTIONS[unit.family][0],
            parameters=FUNCTIONS[unit.family][1],
            type=TYPES[unit.dtype],
            head_dim=unit.head_dim,
            causal="true" if unit.causal else "false",
            words=WORDS[unit.family],
            dtype=unit.dtype,
        )
        for unit in absent
    )
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in (("@VERSION@", version), ("@HOLDS@", str(asked)), ("@DEFINITIONS@", definitions)):
        if name not in text:
            raise ValueError(f"{TEMPLATE.name} has no place {name}")
        text = text.replace(name, value)
    return text
