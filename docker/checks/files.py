"""Every installed file against the hash in the wheel that it came from.

A wheel's RECORD lists each of its files with its sha256, and the installer keeps it. An image could have been
changed together with its RECORD; for flash-attn, the one wheel that no lock holds, the host therefore gives the
hashes that it read from the wheel itself. Cached bytecode (`__pycache__`) is in no wheel: it must belong to a
source that is there and of which it names the size, and be of a kind for which Python compares the source before it
uses it. Its instructions are not compared.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath

from .distributions import installed, site_folders
from .framework import Answer, Expect, check, failed, passed

CHUNK = 4 * 1024 * 1024
CHECKED_HASH = 3
# Files that can change what a program does; others that lie about (caches, notes) are none of this check's business.
RUNS = (".py", ".so", ".pth", ".pyd", ".egg-link")
# What RECORD may name instead of sha256 (wheel specification: sha256 or better).
ALGORITHMS = ("sha256", "sha384", "sha512")
# What a package's metadata holds that nothing goes by once it is installed. The top_level.txt of decord 0.6.0, for one,
# is not the one that its own RECORD tells of.
NOTES = {"top_level.txt", "zip-safe", "INSTALLER", "REQUESTED", "direct_url.json"}
# virtualenv and uv put these beside the packages; Python or the installer writes them, no wheel.
OF_THE_ENVIRONMENT = {"_virtualenv.py", "_virtualenv.pth", "distutils-precedence.pth"}


@dataclass
class Inventory:
    """What RECORDs say: path -> (algorithm and hash in hex or None, whose) of each, and the RECORDs' own problems."""

    files: dict[str, list[tuple[tuple[str, str] | None, str]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@check(
    "files.unmodified",
    "Does every installed file equal the hash in the wheel that it came from, and is none there that no wheel brought?",
    timeout=300.0,
)
def unmodified(expect: Expect) -> Answer:
    """Hash everything in every RECORD, several files at once, and look for code that no RECORD lists."""
    required = "every installed file equals its hash in the wheel's RECORD, and no other code lies between them"
    started = time.monotonic()
    packages, problems = installed()
    inventory = read_records(packages)
    problems += inventory.problems
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1)) as pool:
        hashes = dict(pool.map(lambda path: (path, hashed(path)), inventory.files))
    for path, claims in inventory.files.items():
        problems += different_from_records(path, hashes[path], claims)
    problems += different_from_wheel(expect, packages.get("flash-attn"), hashes)
    problems += unrecorded(inventory)
    total = sum(file.size for file in hashes.values())
    seconds = time.monotonic() - started
    measured = f"{len(hashes)} files of {len(packages)} packages, {total / 1e9:.2f} GB, hashed in {seconds:.1f} s"
    facts = {"files": len(hashes), "bytes": total, "packages": len(packages)}
    if problems:
        return failed(
            required, f"problems: {len(problems)} in {measured}, such as {problems[0]}", "\n".join(problems), **facts
        )
    return passed(required, measured, **facts)


def read_records(packages: dict[str, metadata.Distribution]) -> Inventory:
    """Read the RECORD of every distribution."""
    inventory = Inventory()
    for name, distribution in packages.items():
        record = distribution.read_text("RECORD")
        if not record:
            inventory.problems.append(f"{name} {distribution.version} has no RECORD: nothing says what its files were")
            continue
        owner = f"{name} {distribution.version}"
        for entry in filter(None, csv.reader(record.splitlines())):  # a line may be empty
            path, digest = (*entry, "")[:2]
            if path.endswith(".pyc"):
                continue
            if path.partition("/")[0].endswith(".dist-info") and path.rpartition("/")[2] in NOTES:
                continue
            real = os.path.realpath(str(distribution.locate_file(path)))
            inventory.files.setdefault(real, []).append((_recorded(digest), owner))
    return inventory


def different_from_records(path: str, actual: Hashed, claims: list[tuple[tuple[str, str] | None, str]]) -> list[str]:
    """Return a line per RECORD that lists the file and says otherwise.

    Where two packages brought the same path, the one that was installed last has laid its file over the other's, which
    then lacks its own. A licence or a note may be lost like that, code may not.
    """
    problems = []
    for recorded, owner in claims:
        if actual.digest is None:
            problems.append(f"{path} {actual.problem}; {owner} brought it")
        elif recorded is None:
            if runs(path):
                problems.append(f"{path} has no hash in the RECORD of {owner}: nothing says what it was")
        else:
            algorithm, wanted = recorded
            found = actual.digest if algorithm == "sha256" else hashed(path, algorithm).digest
            if found != wanted:
                problems.append(f"{path} is not the file that {owner} brought: {algorithm} {found}, recorded {wanted}")
    return problems if runs(path) or len(problems) == len(claims) else []


def different_from_wheel(
    expect: Expect, flash_attn: metadata.Distribution | None, hashes: dict[str, Hashed]
) -> Iterator[str]:
    """Yield a line per file of the host's flash-attn wheel that is not in the image as it is in the wheel."""
    wheel = expect["flash_attn"].get("wheel") or {}
    root = Path(str(flash_attn.locate_file(""))) if flash_attn else site_folders()[0]
    for path, wanted in (wheel.get("files") or {}).items():
        if path.endswith(".dist-info/RECORD"):
            continue  # the installer adds its own lines to it
        parts = PurePosixPath(path).parts
        if parts[0].endswith(".data"):
            parts = parts[2:] if parts[1] in ("purelib", "platlib") else ()
        if not parts:
            continue
        real = os.path.realpath(root.joinpath(*parts))
        actual = hashes.get(real) or hashed(real)
        if actual.digest is None:
            yield f"{real} {actual.problem}; {wheel.get('filename')} holds it"
        elif actual.digest != wanted:
            yield f"{real} is not the file in {wheel.get('filename')}: sha256 {actual.digest}, in the wheel {wanted}"


def unrecorded(inventory: Inventory) -> Iterator[str]:
    """Yield a line per file of code in the site folders that no RECORD lists, and per link that leads to such code."""
    for site in site_folders():
        for folder, folders, names in os.walk(site):
            for name in names:
                path = os.path.realpath(f"{folder}/{name}")
                if path in inventory.files or (folder == str(site) and name in OF_THE_ENVIRONMENT):
                    continue
                if name.endswith(".pyc"):
                    problem = stale_bytecode(Path(folder, name))
                    if problem:
                        yield problem
                elif runs(name):
                    yield f"{path} is in no wheel's RECORD"
            # The walk does not follow links to folders, and Python does: a link makes a package of what it leads to.
            yield from filter(None, (foreign_link(f"{folder}/{name}", inventory) for name in folders))


def foreign_link(path: str, inventory: Inventory) -> str | None:
    """Say that a folder is a link out of the site folders to code that no RECORD lists, or None."""
    if not os.path.islink(path):  # noqa: PTH114 - as `os.walk` asks, for thousands of folders
        return None
    sites = [f"{os.path.realpath(site)}/" for site in site_folders()]
    target, seen = os.path.realpath(path), set()
    for folder, folders, names in os.walk(target, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or any(f"{real}/".startswith(site) for site in sites):
            folders.clear()  # walked already, or where it lies
            continue
        seen.add(real)
        for name in names:
            if runs(name) and os.path.realpath(f"{real}/{name}") not in inventory.files:
                return f"{path} is a link to {target}, and {real}/{name} is in no wheel's RECORD"
    return None


def runs(name: str) -> bool:
    """Say whether a file of that name can change what a program does."""
    return name.endswith(RUNS) or ".so." in name.rpartition("/")[2]


def stale_bytecode(path: Path) -> str | None:
    """Say what is wrong with a cached bytecode file, or None: its source must be there, of the size it names.

    Header (PEP 552): 4 bytes magic, 4 bytes flags, then 4 bytes modification time and 4 bytes source size, or,
    where the flags say so, the source's hash, which Python then checks.
    """
    if path.parent.name != "__pycache__":
        return f"{path} is bytecode without a source, in no wheel's RECORD"
    source = path.parent.parent / f"{path.name.split('.', 1)[0]}.py"
    try:
        stat = source.stat()
        with path.open("rb") as file:
            header = file.read(16)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        return f"{path} cannot be matched to its source: {error}"
    flags = int.from_bytes(header[4:8], "little")
    if len(header) < 16 or flags not in (0, CHECKED_HASH):
        return f"{path} is bytecode that Python uses without asking whether its source changed"
    if flags == 0 and int.from_bytes(header[12:16], "little") != stat.st_size & 0xFFFFFFFF:
        return f"{path} was compiled from another file than {source}"
    return None


@dataclass(frozen=True)
class Hashed:
    """A file's hash in hex and its size in bytes; where there is no hash, `problem` says why: `is missing`."""

    digest: str | None
    size: int = 0
    problem: str = ""


def hashed(path: str, algorithm: str = "sha256") -> Hashed:
    """Return a file's hash, or why the image's user does not have the file.

    Raises OSError for the machine's own trouble, such as a disk that cannot be read: the image is not to blame for it.
    """
    digest, size = hashlib.new(algorithm), 0
    try:
        with Path(path).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except (FileNotFoundError, NotADirectoryError):
        return Hashed(None, problem="is missing")
    except (PermissionError, IsADirectoryError) as error:
        return Hashed(None, problem=f"cannot be read: {error.strerror}")
    return Hashed(digest.hexdigest(), size)


def _recorded(text: str) -> tuple[str, str] | None:
    """Return algorithm and hash in hex of RECORD's `sha256=...`; None where it names none that can be relied on."""
    algorithm, _, value = text.partition("=")
    if algorithm not in ALGORITHMS:
        return None
    try:
        return algorithm, base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except ValueError:  # no base64
        return None
