"""Read what the dynamic loader reads of a 64-bit little-endian ELF file: needed libraries, search paths, symbols.

Standard library only: images hold no `readelf`. Everything is taken from the dynamic segment, as the loader does,
not from section headers, which a file may lack. Layouts are those of the System V ABI, chapter 5, and the GNU hash
section of glibc.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"\x7fELF\x02\x01"  # 64 bit, little-endian
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 4, 5, 6, 14, 15, 29
DT_GNU_HASH, DT_AUXILIARY = 0x6FFFFEF5, 0x7FFFFFFD
STB_LOCAL, STB_WEAK = 0, 2
SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size


class NotElfError(ValueError):
    """The file is no 64-bit little-endian ELF file, or is damaged. The message names it."""


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol: name, whether the file defines it, whether it may stay undefined."""

    name: str
    defined: bool
    weak: bool


@dataclass(frozen=True)
class Elf:
    """What the dynamic segment says.

    rpath, runpath: as written, with `$ORIGIN`. interpreter: the loader of a program. dynamic: there is such a segment.
    """

    path: str
    soname: str
    needed: tuple[str, ...]
    auxiliary: tuple[str, ...]
    rpath: str
    runpath: str
    interpreter: str
    dynamic: bool


def is_elf(path: Path) -> bool:
    """Say whether a file begins as a 64-bit little-endian ELF file."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read(path: Path) -> Elf:
    """Read a file's dynamic segment. Raises NotElfError, OSError."""
    with _Image(path) as image:
        entries = image.entries
        text = image.string

        def first(tag: int) -> str:
            return next((text(value) for found, value in entries if found == tag), "")

        return Elf(
            path=str(path),
            soname=first(DT_SONAME),
            needed=tuple(text(value) for tag, value in entries if tag == DT_NEEDED),
            auxiliary=tuple(text(value) for tag, value in entries if tag == DT_AUXILIARY),
            rpath=first(DT_RPATH),
            runpath=first(DT_RUNPATH),
            interpreter=image.interpreter,
            dynamic=bool(entries),
        )


def symbols(path: Path) -> list[Symbol]:
    """Return the dynamic symbols of a file, local ones left out. Raises NotElfError, OSError."""
    with _Image(path) as image:
        return list(image.symbols())


class _Image:
    """An ELF file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Image:
        with self.path.open("rb") as file:
            try:
                self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise NotElfError(f"{self.path} is empty") from error
        try:
            self._read_headers()
        except (struct.error, OverflowError, UnicodeDecodeError) as error:
            raise NotElfError(f"{self.path} is damaged: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes.close()

    def _read_headers(self) -> None:
        if self.bytes[: len(MAGIC)] != MAGIC:
            raise NotElfError(f"{self.path} is no 64-bit little-endian ELF file")
        table, size, count = (
            struct.unpack_from("<Q", self.bytes, 32)[0],
            *struct.unpack_from("<HH", self.bytes, 54),
        )
        headers = [struct.unpack_from("<IIQQQQQQ", self.bytes, table + size * index) for index in range(count)]
        # kind, flags, offset in the file, address, physical address, size in the file, size in memory, alignment
        self.segments = [
            (address, offset, length) for kind, _, offset, address, _, length, _, _ in headers if kind == PT_LOAD
        ]
        self.interpreter = ""
        self.entries: list[tuple[int, int]] = []
        for kind, _, offset, _, _, length, _, _ in headers:
            if kind == PT_INTERP:
                self.interpreter = self.bytes[offset : offset + length].rstrip(b"\0").decode()
            elif kind == PT_DYNAMIC:
                for tag, value in struct.iter_unpack("<QQ", self.bytes[offset : offset + length // 16 * 16]):
                    if tag == 0:
                        break
                    self.entries.append((tag, value))
        self.values = dict(self.entries)
        self.strings = self._offset(self.values[DT_STRTAB]) if DT_STRTAB in self.values else 0

    def _offset(self, address: int) -> int:
        for start, offset, length in self.segments:
            if start <= address < start + length:
                return offset + address - start
        raise NotElfError(f"{self.path} is damaged: address {address:#x} is in no segment")

    def string(self, index: int) -> str:
        """Return the string at an index of the dynamic string table."""
        start = self.strings + index
        return self.bytes[start : self.bytes.find(b"\0", start)].decode("utf-8", "replace")

    def symbols(self) -> Iterator[Symbol]:
        """Yield the dynamic symbols."""
        if DT_SYMTAB not in self.values:
            return
        start = self._offset(self.values[DT_SYMTAB])
        table = self.bytes[start : start + SYMBOL.size * self._symbol_count()]
        for name, info, _, section, _, _ in SYMBOL.iter_unpack(table):
            binding = info >> 4
            if name and binding != STB_LOCAL:
                yield Symbol(self.string(name), section != 0, binding == STB_WEAK)

    def _symbol_count(self) -> int:
        if DT_HASH in self.values:
            count: int = struct.unpack_from("<II", self.bytes, self._offset(self.values[DT_HASH]))[1]
            return count
        if DT_GNU_HASH not in self.values:
            return 0
        # GNU hash: the symbols after the first `hashed` ones lie in chains; a chain ends where the lowest bit is set.
        start = self._offset(self.values[DT_GNU_HASH])
        bucket_count, hashed, bloom_count, _ = struct.unpack_from("<IIII", self.bytes, start)
        buckets_at = start + 16 + bloom_count * 8
        last = max(struct.unpack_from(f"<{bucket_count}I", self.bytes, buckets_at), default=0)
        if last < hashed:
            return int(hashed)
        chains_at = buckets_at + bucket_count * 4
        while not struct.unpack_from("<I", self.bytes, chains_at + (last - hashed) * 4)[0] & 1:
            last += 1
        return int(last) + 1
