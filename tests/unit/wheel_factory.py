"""Makes small flash-attn wheels whose shared object is a real ELF file, so that tests read what the code reads."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

# Mangled names as nvcc 12.4 and g++ 12.2 write them for flash-attn 2.8.3.
KERNEL_NAMES = {
    "fwd": "_ZN5flash16flash_fwd_kernelI23Flash_fwd_kernel_traitsILi{dim}ELi128ELi64ELi4ELb0ELb0EN7cutlass{dtype}E19"
    "Flash_kernel_traitsILi{dim}ELi128ELi64ELi4ES3_EELb0ELb{causal}ELb0ELb0ELb0ELb1ELb0ELb0EEEvNS_16Flash_fwd_paramsE",
    "fwd-split": "_ZN5flash24flash_fwd_splitkv_kernelI23Flash_fwd_kernel_traitsILi{dim}ELi64ELi128ELi4ELb0ELb0E"
    "N7cutlass{dtype}E19Flash_kernel_traitsILi{dim}ELi64ELi128ELi4ES3_EELb{causal}ELb0ELb0ELb0ELb0ELb0ELb1ELb0EEEv"
    "NS_16Flash_fwd_paramsE",
}
DTYPES = {"bf16": "10bfloat16_t", "fp16": "6half_t"}
OLD_ABI = "_ZN3c106detail14torchCheckFailEPKcS2_jRKSs"
NEW_ABI = "_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"

REFUSALS = b"".join(
    f"This flash attention build does not support {feature}.\0".encode()
    for feature in ("backward", "dropout", "alibi", "softcap", "local attention")
)

SHT_PROGBITS, SHT_STRTAB, SHT_DYNAMIC, SHT_DYNSYM = 1, 3, 6, 11
DT_NULL, DT_NEEDED = 0, 1


def kernel_names(
    head_dims: Iterable[int] = (64, 96, 128),
    dtypes: Iterable[str] = ("bf16", "fp16"),
    directions: Iterable[str] = ("fwd", "fwd-split"),
) -> bytes:
    """Return the names that a wheel with these kernels registers, as its `.rodata` holds them."""
    names = (
        KERNEL_NAMES[direction].format(dim=dim, dtype=DTYPES[dtype], causal=causal)
        for direction in directions
        for dim in head_dims
        for dtype in dtypes
        for causal in (0, 1)
    )
    return b"".join(name.encode() + b"\0" for name in names)


def fatbin(archs: Iterable[str], *, kind: int = 2) -> bytes:
    """Return a `.nv_fatbin` section with one entry for each arch. kind: 2 machine code, 1 PTX."""
    section = b""
    for arch in archs:
        payload = b"\x7fELF".ljust(24, b"\0")
        header = struct.pack("<HHIQ", kind, 0x101, 64, len(payload)).ljust(28, b"\0") + struct.pack("<I", int(arch))
        entry = header.ljust(64, b"\0") + payload
        section += struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entry)) + entry
    return section


def shared_object(
    *,
    needed: Iterable[str] = ("libc10.so", "libcudart.so.12"),
    undefined: Iterable[str] = (OLD_ABI,),
    device_code: bytes | None = None,
    names: bytes | None = None,
) -> bytes:
    """Return an ELF64 file with the sections that tell what a flash-attn extension is."""
    strings = b"\0"
    offsets = {}
    for name in (*needed, *undefined):
        offsets[name] = len(strings)
        strings += name.encode() + b"\0"
    dynamic = b"".join(struct.pack("<QQ", DT_NEEDED, offsets[name]) for name in needed)
    dynamic += struct.pack("<QQ", DT_NULL, 0)
    symbols = bytes(24) + b"".join(struct.pack("<IBBHQQ", offsets[name], 0x12, 0, 0, 0, 0) for name in undefined)
    # name, type, content, index of the string table, size of an entry
    sections = [
        ("", 0, b"", 0, 0),
        (".dynstr", SHT_STRTAB, strings, 0, 0),
        (".dynsym", SHT_DYNSYM, symbols, 1, 24),
        (".dynamic", SHT_DYNAMIC, dynamic, 1, 16),
        (".rodata", SHT_PROGBITS, kernel_names() if names is None else names, 0, 0),
        (".nv_fatbin", SHT_PROGBITS, fatbin(["80"]) if device_code is None else device_code, 0, 0),
        (".comment", SHT_PROGBITS, b"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\0", 0, 0),
    ]
    titles = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections[1:]) + b".shstrtab\0"
    sections.append((".shstrtab", SHT_STRTAB, titles, 0, 0))
    body, headers, position = b"", b"", 64
    for name, kind, content, link, entry in sections:
        title = titles.index(name.encode() + b"\0") if name else 0
        headers += struct.pack("<IIQQQQIIQQ", title, kind, 0, 0, position, len(content), link, 0, 8, entry)
        body += content
        position += len(content)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    start = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, position, 0, 64, 0, 0, 64, len(sections), len(sections) - 1)
    return identity + start + body + headers


def wheel(
    folder: Path,
    *,
    version: str = "2.8.3",
    tags: str = "cp311-cp311-linux_x86_64",
    library: bytes | None = None,
    name: str = "flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so",
) -> Path:
    """Write a wheel into `folder`, the same bytes for the same arguments; `library=b""` leaves the extension out."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"flash_attn-{version}-{tags}.whl"
    content = shared_object() if library is None else library
    info = f"flash_attn-{version}.dist-info"
    members: dict[str, str | bytes] = {
        "flash_attn/__init__.py": f'__version__ = "{version.partition("+")[0]}"\n',
        **({name: content} if content else {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: flash-attn\nVersion: {version}\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            # Without a date of its own a member gets that of now: two wheels made alike would differ once a second.
            archive.writestr(zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0)), data)
    return path
