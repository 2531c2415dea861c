"""Installs an nvcc from Debian's archive as an ordinary CUDA_HOME: `nvcc.py NAME --network DIR --uv FILE --to DIR`.

Debian spreads nvcc over /usr/bin, /usr/lib/nvidia-cuda-toolkit and /etc, and its headers and libraries are packages of
gigabytes. torch's extension builder wants one folder with `bin`, `include` and `lib64`. So the one package with the
programs is fetched, taken apart and laid out; headers and `libcudart` come from NVIDIA's wheels of the same release,
and the headers of cuBLAS and its kin from the wheels that torch itself is installed with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

OLD = 1_000_000_000  # seconds since 1970: September 2001

MADE_FROM = "made-from.json"
"""Says what a CUDA_HOME was made from: build.py keeps objects only for the same."""

PROGRAMS = ("ptxas", "fatbinary", "cudafe++", "nvlink")

# How nvcc finds its parts, relative to itself; same syntax as the file that NVIDIA ships beside it.
PROFILE = """\
TOP = $(_HERE_)/..
CICC_PATH = $(TOP)/nvvm/bin
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64"
"""


def main() -> None:
    """Fetch, verify and lay out the compiler that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="as the matrix names it: 12.4")
    parser.add_argument("--network", type=Path, required=True, help="folder with run.sh and apt's settings")
    parser.add_argument("--uv", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True, help="the CUDA_HOME to make")
    asked = parser.parse_args()
    compiler = find(asked.name)
    sites = [Path(sysconfig.get_path("purelib"))]
    if compiler["headers"]:
        headers = asked.to.with_name(asked.to.name + "-headers")
        command = ["sh", str(asked.network / "run.sh"), str(asked.uv), "pip", "install", "--python", sys.executable]
        command += ["--no-config", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy"]
        command += ["--target", str(headers), "--require-hashes", "-r", str(HERE / compiler["headers"])]
        subprocess.run(command, check=True)
        age(headers)
        sites.insert(0, headers)
    asked.to.mkdir(parents=True, exist_ok=True)
    (asked.to / MADE_FROM).write_text(made_from(compiler), encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        package = download(compiler, asked.network, Path(scratch))
        unpacked = Path(scratch, "unpacked")
        subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
        lay_out(unpacked, asked.to, sites)


def find(name: str) -> dict[str, Any]:
    """Return the entry of `compilers.json` for `12.4`, or for a release or version of it. Raises KeyError."""
    table: dict[str, dict[str, Any]] = json.loads((HERE / "compilers.json").read_text(encoding="utf-8"))["compilers"]
    return table[".".join(name.split(".")[:2])]


def download(compiler: dict[str, Any], network: Path, folder: Path, root: Path = Path("/")) -> Path:
    """Download the compiler's Debian package and return it. Exits with what is wrong when its hash is another.

    root: of the image, whose own apt sources serve where the machine that builds is no Debian.
    """
    settings = network / "apt" / f"{compiler['suite']}.conf"
    environment = dict(os.environ)
    if settings.exists():
        entries = narrowed(settings.with_suffix(".list"), compiler)
        environment["APT_CONFIG"] = str(settings)
    else:
        entries = of_the_image(root, compiler)
    if not entries:
        sys.exit(
            f"nvcc {compiler['version']} comes from Debian {compiler['suite']}, and neither the machine that builds "
            "nor the base has a Debian mirror in its apt sources: add one, or give this row a wheel with --wheelhouse"
        )
    # Lists and caches of their own: the image's stay as they are, and nothing is left in the layer.
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text(entries, encoding="utf-8")
    apt = ["sh", str(network / "run.sh"), "apt-get", "-o", f"Dir::Etc::SourceList={sources}"]
    apt += ["-o", "Dir::Etc::SourceParts=/dev/null"]
    apt += ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}"]
    apt += ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"]
    subprocess.run([*apt, "update"], check=True, env=environment)
    named = f"{compiler['package']}={compiler['package_version']}"
    subprocess.run([*apt, "download", named], check=True, env=environment, cwd=folder)
    (package,) = folder.glob("*.deb")
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != compiler["sha256"]:
        sys.exit(f"{package.name} has sha256 {digest}, and compilers.json asks for {compiler['sha256']}: not used")
    return package


def narrowed(sources: Path, compiler: dict[str, Any]) -> str:
    """Return apt's entries reduced to the suite and component that hold the package: 100 kB to read, not 16 MB."""
    lines = []
    for line in sources.read_text(encoding="utf-8").splitlines():
        before, suite, _components = line.partition(f" {compiler['suite']} ")
        if suite:
            lines.append(f"{before}{suite}{compiler['component']}\n")
    return "".join(lines)


def of_the_image(root: Path, compiler: dict[str, Any]) -> str:
    """Return apt's entries for the compiler's suite from the mirrors that a Debian image itself names, or nothing.

    Another release of the archive lies at the same address. Entries for updates and security are other archives, and
    so are those that another keyring than Debian's signs.
    """
    system = dict(re.findall(r'(?m)^(\w+)="?([^"\n]*)"?$', (root / "etc/os-release").read_text(encoding="utf-8")))
    own = system.get("VERSION_CODENAME", "")
    if system.get("ID") != "debian" or not own:
        return ""
    found: list[tuple[str, str]] = []
    for file in [root / "etc/apt/sources.list", *sorted((root / "etc/apt/sources.list.d").glob("*"))]:
        if file.is_file() and file.suffix in FORMS:
            found += FORMS[file.suffix](file.read_text(encoding="utf-8"), own)
    return "".join(
        f"deb {f'[signed-by={keyring}] ' if keyring else ''}{address} {compiler['suite']} {compiler['component']}\n"
        for keyring, address in dict.fromkeys(found)
        if not keyring or "debian-archive-keyring" in keyring
    )


def one_line(text: str, suite: str) -> Iterator[tuple[str, str]]:
    """Yield keyring and address of a suite's entries in `deb [options] address suite component...`."""
    entry = re.compile(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<address>\S+)\s+(?P<suite>\S+)\s", re.MULTILINE)
    for match in entry.finditer(text):
        if match["suite"] == suite:
            keyring = re.search(r"\bsigned-by=(\S+)", match["options"] or "")
            yield keyring[1] if keyring else "", match["address"]


def stanzas(text: str, suite: str) -> Iterator[tuple[str, str]]:
    """Yield keyring and address of a suite's entries in the form `Types: deb`, `URIs: ...`, `Suites: ...`."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*)$", stanza))
        if "deb" in fields.get("Types", "").split() and suite in fields.get("Suites", "").split():
            for address in fields.get("URIs", "").split():
                yield fields.get("Signed-By", ""), address


FORMS = {".list": one_line, ".sources": stanzas}
"""Reads apt's sources, by the ending of the file's name."""


def made_from(compiler: dict[str, Any]) -> str:
    """Return the compiler's entry with the lock of its headers, as JSON."""
    lock = (HERE / compiler["headers"]).read_text(encoding="utf-8") if compiler["headers"] else None
    return json.dumps({**compiler, "headers": lock}, sort_keys=True)


def age(folder: Path) -> None:
    """Give every file one old time.

    A header that looks newer than the objects that an earlier build left would have them
    all compiled again, though it is the same file by its hash.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (OLD, OLD))


def lay_out(deb_root: Path, target: Path, sites: Sequence[Path]) -> None:
    """Move the programs out of the unpacked package, and link what the `nvidia` packages in `sites` hold.

    The first site that has a header wins. Raises FileNotFoundError for a program that the package does not have.
    """
    library = deb_root / "usr/lib/nvidia-cuda-toolkit"
    for folder in ("bin", "include", "lib64", "nvvm/bin"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        shutil.move(str(deb_root / "usr/bin" / program), target / "bin" / program)
    shutil.move(str(library / "bin/nvcc"), target / "bin/nvcc")
    shutil.move(str(library / "bin/crt"), target / "bin/crt")
    shutil.move(str(library / "bin/cicc"), target / "nvvm/bin/cicc")
    shutil.move(str(library / "libdevice"), target / "nvvm/libdevice")
    (target / "bin/nvcc.profile").write_text(PROFILE, encoding="utf-8")
    for package in (package for site in sites for package in sorted(site.glob("nvidia/*"))):
        link_all((package / "include").glob("*"), target / "include")
        link_all((package / "lib").glob("libcudart.so.*"), target / "lib64")
    for versioned in sorted((target / "lib64").glob("libcudart.so.*")):
        link_all([versioned], target / "lib64", name="libcudart.so")


def link_all(paths: Iterable[Path], folder: Path, name: str = "") -> None:
    """Link files and folders into `folder`, each under its own name or `name`, but for names that are there already."""
    for path in sorted(paths):
        link = folder / (name or path.name)
        if not link.is_symlink() and not link.exists():
            link.symlink_to(path.resolve())


if __name__ == "__main__":
    main()
