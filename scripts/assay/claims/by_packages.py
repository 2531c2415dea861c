"""Claims about what packages hold, measured by reading them: wheels in the package index, and flash-attn's here."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from assay import paths, releases
from assay.claims.packages import member, open_file, open_wheel
from assay.claims.table import Context, Measured, NotMeasuredError, numbers
from assay.errors import IngredientError
from assay.wheels.wheel import EXTENSION_NAME

ARTICLES_RELEASES = ("12.0.146", "12.1.105", "12.2.0")  # the three that the article compares
NVJITLINK_SYMBOL = "__nvJitLinkAddData_12_1"


def torch_builds(context: Context) -> Measured:
    """Read which CUDA the package index's torch 2.4.0 requires; builds for others are on PyTorch's own index."""
    lines = member(open_wheel("torch", "2.4.0"), "torch-2.4.0.dist-info/METADATA").read().decode().splitlines()
    pins = [pin[1] for line in lines if (pin := re.search(r"nvidia-cuda-runtime-cu12\s*\(?==([\d.]+)", line))]
    return Measured(
        text=f"the index's torch 2.4.0 requires CUDA runtime {', '.join(pins)}; builds for other releases lie on "
        "PyTorch's own index, where this machine did not look",
        supports=None,
        data={"cuda_runtime": pins},
    )


def cublaslt_soname(context: Context) -> Measured:
    """Read which cuBLASLt each release's cuBLAS asks the loader for, and which files the wheels hold."""
    needed, files = {}, {}
    for name in ARTICLES_RELEASES:
        release = releases.load().cuda(name)
        wheel = open_wheel("nvidia-cublas-cu12", release.components["cublas"])
        files[release.name] = [Path(path).name for path in wheel.namelist() if "libcublasLt.so" in path]
        needed[release.name] = [lib for lib in needed_by(member(wheel, "/libcublas.so.12")) if "cublasLt" in lib]
    same = all(value == ["libcublasLt.so.12"] for value in (*needed.values(), *files.values()))
    listed = "; ".join(f"{name}: {', '.join(value)}" for name, value in needed.items())
    return Measured(text=f"libcublas needs {listed}", supports=same, data={"needed": needed, "files": files})


def shfl_declarations(context: Context) -> Measured:
    """Compare the declarations of __shfl_sync and __ldg in the headers of the three releases."""
    found = {}
    for name in ARTICLES_RELEASES:
        release = releases.load().cuda(name)
        wheel = open_wheel("nvidia-cuda-runtime-cu12", release.components["cudart"])
        text = "".join(
            member(wheel, f"/{header}").read().decode() for header in ("sm_30_intrinsics.h", "sm_32_intrinsics.h")
        )
        found[release.name] = declarations(text)
    counts = "; ".join(f"{name}: {len(lines)}" for name, lines in found.items())
    same = len(set(found.values())) == 1
    both = all(any(word in line for line in lines) for lines in found.values() for word in ("__shfl_sync(", "__ldg("))
    return Measured(
        text=f"declarations of __shfl_sync and __ldg: {counts}; {'all the same' if same else 'they differ'}",
        supports=same and both,
        data={"declarations": {name: list(lines) for name, lines in found.items()}},
    )


def declarations(header: str) -> tuple[str, ...]:
    """Return the declarations of __shfl_sync and __ldg in a header, white space made even."""
    pattern = re.compile(r"^[^\n/*#]*\b(?:__shfl_sync|__ldg)\([^;{\n]*", re.MULTILINE)
    return tuple(sorted({" ".join(match[0].split()) for match in pattern.finditer(header)}))


def nvjitlink_symbol(context: Context) -> Measured:
    """Look for the symbol that torch's libcusparse asks for in nvJitLink of the three releases."""
    has = {}
    for name in ARTICLES_RELEASES:
        release = releases.load().cuda(name)
        wheel = open_wheel("nvidia-nvjitlink-cu12", release.components["nvjitlink"])
        has[release.name] = NVJITLINK_SYMBOL in exported(member(wheel, "/libnvJitLink.so.12"))
    listed = "; ".join(f"{name}: {'exported' if value else 'absent'}" for name, value in has.items())
    row = next((row for row in context.rows if row.id == "cu120-on-library-path"), None)
    failed = [one.measured for one in row.findings if one.check == "torch.import"] if row else []
    return Measured(
        text=f"{NVJITLINK_SYMBOL}: {listed}" + (f"; row cu120-on-library-path: {failed[0]}" if failed else ""),
        supports=list(has.values()) == [False, True, True],
        data={"exported": has},
    )


def flash_attn_docstring(context: Context) -> Measured:
    """Read the docstrings of the interface in a flash-attn wheel, and look up what the machine code told."""
    path = flash_attn_wheel(context)
    with open_file(path) as wheel:
        source = member(wheel, "flash_attn/flash_attn_interface.py").read().decode()
    texts = docstrings(source)
    claimed = ("sm86", "sm_86", "sm90", "sm_90", "__shfl_sync")
    words = [word for word in claimed if any(word in text for text in texts.values())]
    private = "none" if "_flash_attn_forward" not in texts else "one"
    mentioned = ", ".join(words) or "none of " + ", ".join(claimed)
    text = f"{path.name}: {len(texts)} docstrings, {private} on _flash_attn_forward; they mention {mentioned}"
    finding = next(context.findings("flash-attn.kernels"), None)
    return Measured(text=text + (f"; flash-attn.kernels: {finding.measured}" if finding else ""), supports=not words)


def docstrings(source: str) -> dict[str, str]:
    """Return the docstrings of the functions in a Python source, by function."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return {node.name: text for node in functions if (text := ast.get_docstring(node))}


def environment_switches(context: Context) -> Measured:
    """Search the flash-attn wheel for the first variable, and torch's metadata for its cuDNN."""
    path = flash_attn_wheel(context)
    name = b"FLASH_ATTENTION_USE_FLASH_ATTN_V2"
    with open_file(path) as wheel:
        hits = [item for item in wheel.namelist() if name in wheel.read(item)]
        count = len(wheel.namelist())
    metadata = member(open_wheel("torch", "2.4.0"), "torch-2.4.0.dist-info/METADATA").read().decode()
    pin = re.search(r"nvidia-cudnn-cu12 ?\(?==([\d.]+)", metadata)
    if pin is None:
        raise IngredientError("the metadata of torch 2.4.0 in the package index pins no cuDNN")
    cudnn = pin[1]
    return Measured(
        text=f"{name.decode()} is in {len(hits)} of the {count} files of {path.name}; torch 2.4.0 pins cuDNN {cudnn}",
        supports=not hits and numbers(cudnn) >= (8, 9),
    )


def flash_attn_wheel(context: Context) -> Path:
    """Return a flash-attn wheel of this machine: from the wheelhouses, else from the ones that were built here.

    Never one without a compiled module, such as that of the default matrix's row `no-kernels`: what a claim says of
    flash-attn is asked of its machine code, too. Raises IngredientError when a wheel is damaged.
    """
    # `[!.]`: without the folders in which a wheel is still being made.
    folders = [*context.wheelhouses, *sorted((paths.state_dir() / "wheelhouse").glob("[!.]*"))]
    for folder in folders:
        for path in sorted(folder.glob("flash_attn-*.whl")):
            with open_file(path) as wheel:
                if any(map(EXTENSION_NAME.fullmatch, wheel.namelist())):
                    return path
    raise NotMeasuredError("no flash-attn wheel: name a folder with --wheelhouse, or run `assay matrix` first")


def needed_by(library: Any) -> list[str]:
    """Return the libraries that an ELF file asks the loader for.

    Raises IngredientError when it has no dynamic section.
    """
    dynamic = ELFFile(library).get_section_by_name(".dynamic")
    if not isinstance(dynamic, DynamicSection):
        raise IngredientError("the library has no dynamic section")
    return [str(getattr(tag, "needed", "")) for tag in dynamic.iter_tags("DT_NEEDED")]


def exported(library: Any) -> set[str]:
    """Return the dynamic symbols that an ELF file defines. Raises IngredientError when it has none."""
    table = ELFFile(library).get_section_by_name(".dynsym")
    if not isinstance(table, SymbolTableSection):
        raise IngredientError("the library has no dynamic symbols")
    return {symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF"}
