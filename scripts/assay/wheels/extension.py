"""What a compiled flash-attn extension says about itself: CUDA major, C++ ABI, machine code and kernels.

A wheel's file name and metadata promise; the ELF file inside it keeps the promise or does not. Everything here is read
from the bytes alone, without CUDA, without torch and without importing anything.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

Pass = Literal["fwd", "fwd-split", "bwd"]

# A fat binary is a row of containers (magic, version, header size, payload size), each holding entries whose header
# gives the kind, its own size, the payload's size and, at byte 28, the architecture. Layout read off the 144 entries
# of a wheel that nvcc 12.4 built and compared with what `cuobjdump --list-elf` says of the same file.
CONTAINER = struct.Struct("<IHHQ")
CONTAINER_MAGIC = 0xBA55ED50
ENTRY = struct.Struct("<HHIQ")
ENTRY_ARCH_OFFSET = 28
PTX, SASS = 1, 2

# `flash::flash_fwd_kernel<Flash_fwd_kernel_traits<96, ..., cutlass::bfloat16_t, ...>, Is_dropout, Is_causal, ...>` as
# the host code registers it. The position of Is_causal among the bool parameters is from the kernels' declarations in
# flash_fwd_launch_template.h and flash_bwd_launch_template.h of 2.8.3.
KERNELS: dict[bytes, tuple[Pass, int]] = {
    b"flash_fwd_kernel": ("fwd", 1),
    b"flash_fwd_splitkv_kernel": ("fwd-split", 0),
    b"flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel": ("bwd", 1),
}
KERNEL_NAME = re.compile(
    rb"_ZN5flash\d+(?P<name>flash_\w+?_kernel)I\d+Flash_[a-z]+_kernel_traitsILi(?P<head_dim>\d+)E"
    rb"\w*?7cutlass(?P<dtype>10bfloat16_t|6half_t)E19Flash_kernel_traitsI\w*?EE(?P<flags>(?:Lb[01]E)+)"
)
REFUSAL = re.compile(rb"This flash attention build does not support ([a-z ]+)\.")

DTYPES = {b"10bfloat16_t": "bf16", b"6half_t": "fp16"}


@dataclass(frozen=True, order=True)
class Kernel:
    """One specialisation of flash-attn: the unit in which it is compiled, and in which a wheel holds it or not."""

    direction: Pass
    head_dim: int
    dtype: str
    causal: bool

    def __str__(self) -> str:
        causal = " causal" if self.causal else ""
        return f"{self.direction} head dim {self.head_dim} {self.dtype}{causal}"


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What the shared object says of itself.

    cuda_major: from the CUDA runtime that it needs (`libcudart.so.12`); None when it needs none.
    cxx11_abi: whether the torch and c10 symbols that it needs spell `std::string` in the C++11 way; None when no
        symbol tells.
    archs: architectures with machine code, as CUDA writes them (`80`). ptx: those with PTX.
    modules: how many device modules there are for each architecture.
    kernels: the specialisations whose names the host code registers; empty when the names are not flash-attn 2's.
    refuses: features that the API says it was built without (`backward`, `local attention`). A kernel that lacks a
        feature which the API does not refuse gives wrong results without a word.
    gcc: the host compiler, from the `.comment` section.
    """

    cuda_major: int | None
    cxx11_abi: bool | None
    archs: tuple[str, ...]
    ptx: tuple[str, ...]
    modules: dict[str, int]
    kernels: frozenset[Kernel]
    refuses: frozenset[str]
    gcc: str | None


def read(content: bytes) -> Extension:
    """Read a shared object. Raises ValueError when the bytes are no ELF file or its fat binary is damaged."""
    try:
        elf = ELFFile(io.BytesIO(content))
        strings = _section(elf, ".rodata")
        entries = list(fatbin_entries(_section(elf, ".nv_fatbin")))
        return Extension(
            cuda_major=_cuda_major(elf),
            cxx11_abi=_cxx11_abi(elf),
            archs=_archs(entries, SASS),
            ptx=_archs(entries, PTX),
            modules=_count(arch for kind, arch in entries if kind == SASS),
            kernels=kernels(strings),
            refuses=frozenset(found.decode() for found in REFUSAL.findall(strings)),
            gcc=_gcc(_section(elf, ".comment")),
        )
    except (ELFError, struct.error) as error:
        raise ValueError(f"not a readable ELF shared object: {error}") from error


def fatbin_entries(section: bytes) -> Iterator[tuple[int, str]]:
    """Yield kind (`PTX` or `SASS`) and architecture of every entry of a `.nv_fatbin` section.

    Raises ValueError where the section does not hold what its headers say.
    """
    position = 0
    while position + CONTAINER.size <= len(section):
        magic, _version, header_size, size = CONTAINER.unpack_from(section, position)
        if magic == 0:  # padding between containers, in units of 8 bytes
            position += 8
            continue
        if magic != CONTAINER_MAGIC:
            raise ValueError(f".nv_fatbin holds {magic:#x} at byte {position}, not a container of device code")
        entry, end = position + header_size, position + header_size + size
        if end > len(section):
            raise ValueError(f".nv_fatbin ends inside the container at byte {position}")
        while entry < end:
            kind, _, entry_header, payload = ENTRY.unpack_from(section, entry)
            (arch,) = struct.unpack_from("<I", section, entry + ENTRY_ARCH_OFFSET)
            if entry_header < ENTRY_ARCH_OFFSET + 4:
                raise ValueError(f".nv_fatbin holds an entry with a header of {entry_header} bytes at byte {entry}")
            yield kind, str(arch)
            entry += entry_header + payload
        position = end


def kernels(names: bytes) -> frozenset[Kernel]:
    """Return the flash-attn specialisations among the kernel names that the host code registers.

    >>> kernels(b"_ZN5flash16flash_fwd_kernelI23Flash_fwd_kernel_traitsILi96ELi128ELi64ELi4ELb0ELb0E"
    ...         b"N7cutlass10bfloat16_tE19Flash_kernel_traitsILi96ELi128ELi64ELi4ES3_EELb0ELb1ELb0ELb0EEEv")
    frozenset({Kernel(direction='fwd', head_dim=96, dtype='bf16', causal=True)})
    """
    found = set()
    for match in KERNEL_NAME.finditer(names):
        known = KERNELS.get(match["name"])
        if known is None:
            continue  # helpers, such as the kernel that combines the splits
        direction, causal = known
        flags = re.findall(rb"Lb([01])E", match["flags"])
        found.add(Kernel(direction, int(match["head_dim"]), DTYPES[match["dtype"]], flags[causal] == b"1"))
    return frozenset(found)


def _section(elf: ELFFile, name: str) -> bytes:
    section = elf.get_section_by_name(name)
    return bytes(section.data()) if section is not None else b""


def _cuda_major(elf: ELFFile) -> int | None:
    dynamic = elf.get_section_by_name(".dynamic")
    if not isinstance(dynamic, DynamicSection):
        return None
    for tag in dynamic.iter_tags("DT_NEEDED"):
        match = re.match(r"libcudart\.so\.(\d+)", str(getattr(tag, "needed", "")))
        if match:
            return int(match[1])
    return None


def _cxx11_abi(elf: ELFFile) -> bool | None:
    table = elf.get_section_by_name(".dynsym")
    if not isinstance(table, SymbolTableSection):
        return None
    wanted = [
        symbol.name
        for symbol in table.iter_symbols()
        if symbol["st_shndx"] == "SHN_UNDEF" and re.match(r"_ZN?K?(?:3c10|2at|5torch)", symbol.name)
    ]
    if any("__cxx11" in name for name in wanted):
        return True
    # `Ss` is the mangled short form of the old std::string.
    return False if any("Ss" in name for name in wanted) else None


def _archs(entries: list[tuple[int, str]], kind: int) -> tuple[str, ...]:
    return tuple(sorted({arch for entry_kind, arch in entries if entry_kind == kind}, key=int))


def _count(archs: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for arch in archs:
        counts[arch] = counts.get(arch, 0) + 1
    return counts


def _gcc(comment: bytes) -> str | None:
    match = re.search(rb"GCC: \(.*?\) ([\d.]+)", comment)
    return match[1].decode() if match else None
