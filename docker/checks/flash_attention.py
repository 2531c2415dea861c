"""flash-attn without a GPU: is the wheel for this Python and torch, does it import, what machine code is inside.

`flash-attn.wheel` and `flash-attn.abi` read files only, so that a wheel made for another Python or torch is named
as the cause where `flash-attn.import` can show no more than an ImportError.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from . import elf, machine_code, subject
from .distributions import installed, site_folders
from .framework import Answer, Expect, check, failed, passed

IMPORT_SECONDS = 150.0
MODULE = "flash_attn_2_cuda"
# The row's names of element types, and how C++ mangles CUTLASS's.
DTYPES = {"bf16": "N7cutlass10bfloat16_tE", "fp16": "N7cutlass6half_tE"}
# Forward and split-KV forward: the dense API chooses split-KV kernels by itself for small grids.
FORWARD = ("flash_fwd_kernel", "flash_fwd_splitkv_kernel")
KERNEL = re.compile(r"(flash_fwd_kernel|flash_fwd_splitkv_kernel)I\d+\w*?ILi(\d+)E\w*?(N7cutlass\w+?_tE)")
# Mangled names that belong to torch: its namespaces c10, at, torch and caffe2.
OF_TORCH = re.compile(r"_ZT?[A-Z]*?N?K?(3c10|2at|5torch|6caffe2)")


def has_flash_attn(expect: Expect) -> bool:
    """Say whether the row has flash-attn at all."""
    return bool(expect["flash_attn"]["source"] != "none")


def extension() -> Path | None:
    """Return the extension's file that Python loads, wherever it lies; None where it finds none."""
    spec = importlib.util.find_spec(MODULE)
    return Path(spec.origin) if spec is not None and spec.origin else None


def extensions() -> list[Path]:
    """Return every file that is flash-attn's extension module by name, whatever Python it was built for."""
    return sorted(path for folder in site_folders() for path in folder.glob(f"{MODULE}*.so"))


@check(
    "flash-attn.wheel",
    "Was the installed flash-attn wheel made for this Python and this machine?",
    applies=has_flash_attn,
)
def wheel(expect: Expect) -> Answer:
    """Compare the wheel's own tags and the extension's file name with this interpreter."""
    here = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    required = f"a wheel for {here} on {platform}, with its extension for {EXTENSION_SUFFIXES[0]}"
    distribution = installed()[0].get("flash-attn")
    if distribution is None:
        return failed(required, "flash-attn is not installed")
    given = expect["flash_attn"].get("wheel") or {}
    tags = re.findall(r"^Tag: (\S+)", distribution.read_text("WHEEL") or "", re.MULTILINE)
    problems = []
    if not any(suits(tag, here, platform) for tag in tags):
        problems.append(
            f"the wheel is for {', '.join(tags) or 'nothing it names'}, this Python is {here} on {platform}"
        )
    problems += [
        f"{path} is for another Python than {sys.executable}, which loads {' or '.join(EXTENSION_SUFFIXES)}"
        for path in extensions()
        if path.name[len(MODULE) :] not in EXTENSION_SUFFIXES
    ]
    facts = {"tags": tags, "filename": given.get("filename"), "sha256": given.get("sha256")}
    if problems:
        return failed(required, problems[0], "\n".join(problems), **facts)
    name = f"{given['filename']} (sha256 {given['sha256']})" if given else f"flash-attn {distribution.version}"
    return passed(required, f"{name}, tags {', '.join(tags)}", **facts)


def suits(tag: str, here: str, platform: str) -> bool:
    """Say whether a wheel's tag (`cp311-cp311-linux_x86_64`) suits an interpreter (`cp311`) and a platform.

    platform: `linux_x86_64`; its machine must be the last part of the tag's platform (`manylinux2014_x86_64`).
    """
    pythons, abi, platforms = tag.split("-")[-3:]
    machine = platform.partition("_")[2]
    python_suits = any(
        name in (here, f"py{here[2:3]}") or (abi == "abi3" and _no_newer(name, here)) for name in pythons.split(".")
    )
    return python_suits and any(name == "any" or name.endswith(f"_{machine}") for name in platforms.split("."))


def _no_newer(name: str, here: str) -> bool:
    return name.startswith("cp3") and name[3:].isdigit() and int(name[3:]) <= int(here[3:])


@check(
    "flash-attn.abi",
    "Does torch define every symbol of torch that flash-attn's extension was compiled against?",
    applies=has_flash_attn,
)
def abi(expect: Expect) -> Answer:
    """Match the extension's undefined torch symbols with what the libraries of the installed torch define.

    A wheel for another torch, or for the other C++ ABI, asks for names that are not there. Without an extension
    there is nothing to match and this passes: that one must be there is what `flash-attn.import` asks.
    """
    required = "every c10, at and torch symbol that the extension needs is defined by the installed torch"
    found = extensions()
    if not found:
        return passed(required, f"no {MODULE} extension is installed, so none needs a symbol", symbols=0)
    library_folder = _torch_folder() / "lib"
    problems: list[str] = []
    counted = 0
    defined: set[str] = set()
    for path in library_folder.glob("lib*.so*"):
        if path.name.startswith(("libc10", "libtorch")):
            defined |= {symbol.name for symbol in elf.symbols(path) if symbol.defined}
    for path in found:
        needed = {s.name for s in elf.symbols(path) if not s.defined and not s.weak and OF_TORCH.match(s.name)}
        counted += len(needed)
        problems += [f"{path}: undefined symbol: {name}" for name in sorted(needed - defined)]
    facts = {
        "symbols": counted,
        "undefined": len(problems),
        "torch_cxx11": any("__cxx11" in name for name in defined if name.startswith("_ZN3c10")),
        "extension_cxx11": any(
            "__cxx11" in s.name for path in found for s in elf.symbols(path) if OF_TORCH.match(s.name)
        ),
    }
    if problems:
        return failed(
            required,
            f"{len(problems)} of {counted} torch symbols are not in {library_folder}: "
            "the wheel was compiled against another torch or the other C++ ABI",
            "\n".join(problems[:40]),
            **facts,
        )
    return passed(required, f"{counted} torch symbols, all defined in {library_folder}", **facts)


def _torch_folder() -> Path:
    for folder in site_folders():
        if (folder / "torch/lib").is_dir():
            return folder / "torch"
    raise FileNotFoundError(f"no torch/lib in {', '.join(map(str, site_folders()))}")


@check(
    "flash-attn.import",
    "Does `import flash_attn` work, with its compiled extension?",
    needs=("torch.import",),
    timeout=IMPORT_SECONDS + 10,
    applies=has_flash_attn,
)
def imports(expect: Expect) -> Answer:
    """Import it in an interpreter of its own; a crash there is a failed import, with the signal named."""
    required = f"`import flash_attn` works and {MODULE} offers its forward pass"
    facts = subject.attempt(
        required,
        "import torch, flash_attn\n"
        "from flash_attn import flash_attn_func, flash_attn_varlen_func\n"
        f"import {MODULE} as extension\n"
        "report({'version': flash_attn.__version__, 'file': flash_attn.__file__, 'extension': extension.__file__,\n"
        "        'offers': [name for name in ('fwd', 'varlen_fwd') if callable(getattr(extension, name, None))]})\n",
        IMPORT_SECONDS,
    )
    if isinstance(facts, Answer):
        return facts
    if facts["offers"] != ["fwd", "varlen_fwd"]:
        return failed(required, f"{facts['extension']} offers only {facts['offers']}", **facts)
    return passed(required, f"flash-attn {facts['version']} with {facts['extension']}", **facts)


@check(
    "flash-attn.version",
    "Is it the flash-attn version that the row names?",
    needs=("flash-attn.import",),
    applies=has_flash_attn,
)
def version(expect: Expect) -> Answer:
    """Compare the version in the code and in the metadata with the row's."""
    import flash_attn

    wanted = expect["flash_attn"]["version"]
    measured = {"code": flash_attn.__version__, "metadata": metadata.version("flash-attn")}
    given = expect["flash_attn"].get("wheel") or {}
    required = f"flash-attn {wanted}"
    text = ", ".join(f"{where} {value}" for where, value in measured.items())
    if any(value.partition("+")[0] != wanted for value in measured.values()):
        return failed(required, f"flash-attn is {text}", **measured)
    return passed(required, f"{text}, from {given.get('filename') or 'the base image'}", **measured)


@check(
    "flash-attn.kernels",
    "Does flash-attn hold machine code of every asked head dim and type for every GPU of the row, with warp shuffles?",
    needs=("flash-attn.import",),
    timeout=180.0,
    applies=has_flash_attn,
)
def kernels(expect: Expect) -> Answer:
    """List the functions of the extension, apply the binary-compatibility rule, and disassemble one forward module."""
    asked = expect["flash_attn"]
    gpus = {f"{gpu['name']} ({gpu['capability']})": gpu["capability"] for gpu in expect["gpus"]}
    dims, dtypes = asked["head_dims"], asked["dtypes"]
    required = (
        f"forward and split-KV kernels for head dims {', '.join(map(str, dims))} in {', '.join(dtypes)} "
        f"on {', '.join(gpus)}, with SHFL instructions"
    )
    library = extension()
    if library is None:
        return failed(required, f"Python finds no {MODULE}")
    try:
        inside = forward_kernels(machine_code.kernels(library))
        archs = sorted({arch for found in inside.values() for arch in found})
        missing = [
            f"{kernel} of head dim {dim} in {dtype} is there for {_names(inside.get((kernel, dim, dtype), set()))}: "
            f"no kernel image is available for {gpu}"
            for kernel in FORWARD
            for dim in dims
            for dtype in dtypes
            for gpu, capability in gpus.items()
            if not any(machine_code.runs_on(arch, capability) for arch in inside.get((kernel, dim, dtype), ()))
        ]
        shuffles: dict[str, Any] = {
            arch: machine_code.instructions(library, "flash_fwd_kernel", arch)
            for arch in archs
            if any(machine_code.runs_on(arch, capability) for capability in gpus.values())
        }
    except (RuntimeError, subprocess.SubprocessError) as error:
        return Answer("error", required, "the machine code cannot be read", str(error))
    missing += [
        f"no SHFL instruction in the forward kernel for sm_{arch}"
        for arch, seen in shuffles.items()
        if not seen["SHFL"]
    ]
    measured = f"{len(inside)} kinds of forward kernels for {_names(archs)}"
    facts = {
        "archs": archs,
        "kernels": [[kernel, dim, dtype, sorted(found)] for (kernel, dim, dtype), found in sorted(inside.items())],
        "instructions": {
            arch: {name: seen[name] for name in ("SHFL", "HMMA", "HGMMA")} for arch, seen in shuffles.items()
        },
    }
    if missing:
        return failed(required, f"{measured}; {missing[0]}", "\n".join(missing), **facts)
    counts = ", ".join(f"{seen['SHFL']} SHFL in a forward module of sm_{arch}" for arch, seen in shuffles.items())
    return passed(required, f"{measured}; {counts}", **facts)


def forward_kernels(found: list[machine_code.Kernel]) -> dict[tuple[str, int, str], set[str]]:
    """Return the architectures of each kind of forward kernel: (function, head dim, element type)."""
    names = {mangled: dtype for dtype, mangled in DTYPES.items()}
    inside: dict[tuple[str, int, str], set[str]] = {}
    for kernel in found:
        match = KERNEL.search(kernel.name)
        if match and match[3] in names:
            inside.setdefault((match[1], int(match[2]), names[match[3]]), set()).add(kernel.arch)
    return inside


def _names(archs: Any) -> str:
    return ", ".join(f"sm_{arch}" for arch in sorted(archs)) or "no architecture"
