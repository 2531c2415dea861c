"""GPU machine code: which architectures it runs on, and what is inside an extension.

The rule (CUDA C++ Programming Guide, "Binary Compatibility" and "Feature Set Compiler Targets"): machine code for
compute capability X.y runs on X.z for z >= y and on no other X. So does code for a family (`100f`); code for one
architecture (`90a`) runs on exactly that one. PTX for X.y is compiled by the driver for every later capability; PTX
with a letter is not. The host has the same rule in `assay.releases.arch`; tests hold both to one table.
"""

from __future__ import annotations

import re
import subprocess  # cuobjdump and nvdisasm, as argument lists
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .framework import Answer, failed, passed

# A line of `cuobjdump --list-text`, such as `SASS text section 1 : x-_ZN5flash16flash_fwd_kernel...E.sm_80.elf.bin`.
TEXT_SECTION = re.compile(r": x-(\S+)\.sm_(\w+)\.elf\.bin")
# A line of nvdisasm: `/*0010*/   @P0 SHFL.BFLY PT, R5, R4, 0x2, 0x1f ;`
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", re.MULTILINE)
ARCH = re.compile(r"(\d+)(\d)([af]?)")


def runs_on(arch: str, capability: str) -> bool:
    """Say whether machine code for `arch` (`80`, `90a`, `100f`) runs on a GPU of a capability (`8.6`)."""
    match = ARCH.fullmatch(arch)
    if not match:
        return False
    major, minor = (int(part) for part in capability.split("."))
    if match[3] == "a":
        return (int(match[1]), int(match[2])) == (major, minor)
    return int(match[1]) == major and int(match[2]) <= minor


def compiles_for(arch: str, capability: str) -> bool:
    """Say whether the driver can compile PTX for `arch` for a GPU of a capability."""
    match = ARCH.fullmatch(arch)
    if not match or match[3]:
        return False
    major, minor = (int(part) for part in capability.split("."))
    return (int(match[1]), int(match[2])) <= (major, minor)


def answer_for(
    gpus: Sequence[dict[str, Any]],
    *,
    machine: Sequence[str],
    portable: Sequence[str] = (),
    subject: str,
) -> Answer:
    """Answer whether code for these architectures runs on every GPU.

    gpus: as in `Expect.gpus`. machine: architectures of machine code. portable: of PTX. subject: whose code it is.
    """
    capabilities = {f"{gpu['name']} ({gpu['capability']})": gpu["capability"] for gpu in gpus}
    required = f"{subject}'s machine code runs on {', '.join(capabilities)}"
    without = [
        name
        for name, capability in capabilities.items()
        if not any(runs_on(arch, capability) for arch in machine)
        and not any(compiles_for(arch, capability) for arch in portable)
    ]
    inside = [f"sm_{arch}" for arch in sorted(set(machine))] + [f"PTX {arch}" for arch in sorted(set(portable))]
    measured = f"{subject} holds {', '.join(inside) or 'no GPU code'}"
    facts = {"machine": sorted(set(machine)), "portable": sorted(set(portable))}
    if without:
        return failed(
            required,
            f"{measured}; none of it runs on {', '.join(without)}",
            f"{measured}\nno kernel image is available for {', '.join(without)}",
            **facts,
        )
    return passed(required, measured, **facts)


def tool(name: str) -> Path | None:
    """Return NVIDIA's `cuobjdump` or `nvdisasm` from triton, which torch brings, else from the toolkit, or None."""
    for folder in (Path(sysconfig.get_path("purelib")) / "triton/backends/nvidia/bin", Path("/usr/local/cuda/bin")):
        if (folder / name).is_file():
            return folder / name
    return None


def run_tool(path: Path, *arguments: str, cwd: str | None = None, timeout: float = 60) -> str:
    """Return what the tool prints. Raises RuntimeError with its last line when it fails."""
    done = subprocess.run(
        [str(path), *arguments], capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{path.name} {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def require_tool(name: str) -> Path:
    """Return the tool; raises RuntimeError that says where it was looked for."""
    found = tool(name)
    if found is None:
        raise RuntimeError(f"{name} is neither in the triton of {sys.prefix} nor in /usr/local/cuda/bin")
    return found


@dataclass(frozen=True)
class Kernel:
    """One GPU function: its mangled name and the architecture that it was compiled for."""

    name: str
    arch: str


def kernels(library: Path) -> list[Kernel]:
    """Return every function of the machine code in a library. Raises RuntimeError when cuobjdump is absent or fails."""
    text = run_tool(require_tool("cuobjdump"), "--list-text", str(library))
    return [Kernel(match[1], match[2]) for match in TEXT_SECTION.finditer(text)]


def instructions(library: Path, kernel: str, arch: str) -> Counter[str]:
    """Return how often each instruction occurs in the smallest module that holds a kernel of this name for `arch`.

    The whole of a large extension takes minutes to disassemble, one module a second.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_tool(require_tool("cuobjdump"), "--extract-elf", f"sm_{arch}.cubin", str(library), cwd=folder)
        modules = [path for path in Path(folder).iterdir() if kernel.encode() in path.read_bytes()]
        if not modules:
            raise RuntimeError(f"no module for sm_{arch} in {library} holds {kernel}")
        smallest = min(modules, key=lambda path: (path.stat().st_size, path.name))
        listing = run_tool(require_tool("nvdisasm"), "--print-code", str(smallest))
    return Counter(match[1] for match in INSTRUCTION.finditer(listing))
