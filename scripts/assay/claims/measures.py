"""How each claim is measured: one function a claim, named in `claims.toml`."""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from assay import paths, releases
from assay.claims.packages import member, open_wheel
from assay.claims.table import Context, Measure, Measured, NotMeasuredError
from assay.errors import IngredientError
from assay.findings import Finding, Status
from assay.report import RowReport

ARTICLES_RELEASES = ("12.0.146", "12.1.105", "12.2.0")  # the three that the article compares
NVJITLINK_SYMBOL = "__nvJitLinkAddData_12_1"

# NewBie-image-Exp0.1, from its models/model.py: parameters, and tokens of a 1024 x 1024 picture with a full prompt.
PARAMETERS = 3_486_636_096
TOKENS = 4096 + 512
STEPS, FORWARDS_A_STEP = 30, 2  # classifier-free guidance runs the model with and without the prompt
# Parameters of what draws a picture: the text encoders and the VAE as their model cards count them.
PARTS = {
    "picture model": PARAMETERS,
    "Gemma-3-4B": 4_300_000_000,
    "Jina CLIP v2": 865_000_000,
    "FLUX VAE": 84_000_000,
}
CLAIMED_SECONDS = {"A10": 8.3, "A100": 6.9}


def driver_minimum(context: Context) -> Measured:
    """Compare the article's minimum with the release table, and name this run's own driver where there is one."""
    release = releases.load().cuda("12.1.105")
    claimed, real = "535.129.03", release.driver_minimum
    text = f"release table: {release.name} shipped with {release.driver_shipped}, minimum {real}"
    finding = next(findings(context, "driver.version"), None)
    if finding:
        text += f"; here: {finding.measured}"
    return Measured(text=text, supports=_numbers(real) < _numbers(release.driver_shipped) < _numbers(claimed))


def toolkit_beside_torch(context: Context) -> Measured:
    """Look up whether torch imports beside a toolkit of another release, and whether the contract is what fails."""
    rows = [row for row in rows_of(context) if row.id in ("cu120", "cu122")]
    if not rows:
        raise NotMeasuredError("no report with the rows cu120 and cu122")
    asked = ("torch.import", "toolkit.matches-torch")
    facts = {
        row.id: [one.check for one in row.findings if one.check in asked and one.status is Status.PASSED]
        for row in rows
    }
    imports, matches = ([name for name, passed in facts.items() if check in passed] for check in asked)
    return Measured(
        text=f"of {', '.join(facts)}: torch imports in {', '.join(imports) or 'none'}; "
        f"the toolkit is torch's own in {', '.join(matches) or 'none'}",
        supports=imports == list(facts) and not matches,
        data={"passed": facts},
    )


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


def flash_attn_compiler(context: Context) -> Measured:
    """Look up which compiler made the flash-attn of a row, and whether it imported."""
    unknown = None
    for row in rows_of(context):
        given = next((item for item in row.ingredients if item.get("name") == "flash-attn"), None)
        imported = any(one.check == "flash-attn.import" and one.status is Status.PASSED for one in row.findings)
        if given is None or not imported:
            continue
        if not given.get("compiler"):
            unknown = unknown or row.id
            continue
        return Measured(
            text=f"row {row.id}: flash-attn by {given['compiler']} imports beside its torch",
            supports="12.1" not in str(given["compiler"]),
            data={"row": row.id, "compiler": given["compiler"]},
        )
    if unknown:
        return Measured(
            text=f"row {unknown}: flash-attn imports beside its torch; its wheel came ready-made, compiler unrecorded",
            supports=None,
            data={"row": unknown, "compiler": None},
        )
    raise NotMeasuredError("no report with a row whose flash-attn was imported")


def nvjitlink_symbol(context: Context) -> Measured:
    """Look for the symbol that torch's libcusparse asks for in nvJitLink of the three releases."""
    has = {}
    for name in ARTICLES_RELEASES:
        release = releases.load().cuda(name)
        wheel = open_wheel("nvidia-nvjitlink-cu12", release.components["nvjitlink"])
        has[release.name] = NVJITLINK_SYMBOL in exported(member(wheel, "/libnvJitLink.so.12"))
    listed = "; ".join(f"{name}: {'exported' if value else 'absent'}" for name, value in has.items())
    row = next((row for row in rows_of(context) if row.id == "cu120-on-library-path"), None)
    failed = [one.measured for one in row.findings if one.check == "torch.import"] if row else []
    return Measured(
        text=f"{NVJITLINK_SYMBOL}: {listed}" + (f"; row cu120-on-library-path: {failed[0]}" if failed else ""),
        supports=list(has.values()) == [False, True, True],
        data={"exported": has},
    )


def flash_attn_docstring(context: Context) -> Measured:
    """Read the docstrings of the interface in a flash-attn wheel, and look up what the machine code told."""
    path = flash_attn_wheel(context)
    with zipfile.ZipFile(path) as wheel:
        source = wheel.read("flash_attn/flash_attn_interface.py").decode()
    texts = docstrings(source)
    claimed = ("sm86", "sm_86", "sm90", "sm_90", "__shfl_sync")
    words = [word for word in claimed if any(word in text for text in texts.values())]
    private = "none" if "_flash_attn_forward" not in texts else "one"
    mentioned = ", ".join(words) or "none of " + ", ".join(claimed)
    text = f"{path.name}: {len(texts)} docstrings, {private} on _flash_attn_forward; they mention {mentioned}"
    finding = next(findings(context, "flash-attn.kernels"), None)
    return Measured(text=text + (f"; flash-attn.kernels: {finding.measured}" if finding else ""), supports=not words)


def docstrings(source: str) -> dict[str, str]:
    """Return the docstrings of the functions in a Python source, by function."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return {node.name: text for node in functions if (text := ast.get_docstring(node))}


def gpu_names(context: Context) -> Measured:
    """Read chip and compute capability from the releases table."""
    table = releases.load()
    gpus = {name: (table.gpu(name).chip, table.gpu(name).capability) for name in ("A10", "A100", "V100")}
    real = {"A10": ("GA102", "8.6"), "A100": ("GA100", "8.0"), "V100": ("GV100", "7.0")}
    text = "; ".join(f"{name}: {chip}, sm_{capability.replace('.', '')}" for name, (chip, capability) in gpus.items())
    return Measured(text=f"releases table: {text}", supports=gpus == real)


def bf16_product(context: Context) -> Measured:
    """Compute the shares of the A10's peak, and add what this run's GPU measured."""
    peak = releases.load().gpu("A10").bf16_tflops
    shares = {ms: 2 * 4096**3 / ms / 1e9 / peak for ms in (1.8, 3.0)}
    text = f"of {peak:g} TFLOP/s: 1.8 ms is {shares[1.8]:.0%}, 3 ms is {shares[3.0]:.0%}"
    finding = next(findings(context, "bf16.tensor-cores"), None)
    here = f"; here: {finding.measured}" if finding else "; no GPU was measured in this run"
    return Measured(text=text + here, supports=0.3 < shares[3.0] < shares[1.8] < 0.9)


def timeit_syntax(context: Context) -> Measured:
    """Give Python a file with %timeit."""
    try:
        ast.parse("import torch\n%timeit a @ b\n", filename="test_bf16.py")
    except SyntaxError as error:
        return Measured(text=f"SyntaxError: {error.msg}, line {error.lineno}", supports=True)
    return Measured(text="Python parses it", supports=False)


def soak(context: Context) -> Measured:
    """Look up the soak test of a certified row."""
    for finding in findings(context, "sample.soak"):
        return Measured(text=f"sample.soak: {finding.measured}", supports=finding.status is Status.PASSED)
    raise NotMeasuredError("no report in which sample.soak was asked")


def environment_switches(context: Context) -> Measured:
    """Search the flash-attn wheel for the first variable, and torch's metadata for its cuDNN."""
    path = flash_attn_wheel(context)
    name = b"FLASH_ATTENTION_USE_FLASH_ATTN_V2"
    with zipfile.ZipFile(path) as wheel:
        hits = [item for item in wheel.namelist() if name in wheel.read(item)]
        count = len(wheel.namelist())
    metadata = member(open_wheel("torch", "2.4.0"), "torch-2.4.0.dist-info/METADATA").read().decode()
    pin = re.search(r"nvidia-cudnn-cu12 ?\(?==([\d.]+)", metadata)
    cudnn = pin[1] if pin else "unknown"
    return Measured(
        text=f"{name.decode()} is in {len(hits)} of the {count} files of {path.name}; torch 2.4.0 pins cuDNN {cudnn}",
        supports=not hits and _numbers(cudnn) >= (8, 9),
    )


def arithmetic_floor(context: Context) -> Measured:
    """Compute the least time that the matrix products of 30 steps take at the GPUs' peaks.

    Two operations a parameter and token; attention's own products (a fifth more) are left out, in the claim's favour.
    """
    table = releases.load()
    operations = 2 * PARAMETERS * TOKENS * STEPS * FORWARDS_A_STEP
    floors = {name: operations / table.gpu(name).bf16_tflops / 1e12 for name in CLAIMED_SECONDS}
    text = "; ".join(
        f"{name}: at least {floor:.1f} s, {CLAIMED_SECONDS[name]} s claimed" for name, floor in floors.items()
    )
    return Measured(text=text, supports=floors["A10"] > CLAIMED_SECONDS["A10"], data={"floor_seconds": floors})


def memory(context: Context) -> Measured:
    """Add up what the model's parts weigh in bf16: no CUDA release can make that less or more."""
    sizes = {part: count * 2 / 2**30 for part, count in PARTS.items()}
    listed = ", ".join(f"{part} {size:.1f}" for part, size in sizes.items())
    total = sum(sizes.values())
    return Measured(
        text=f"{listed}: {total:.1f} GiB in bf16 before any activation, on every release",
        supports=total * 2**30 > 15.1e9,
        data={"gib": sizes},
    )


def rows_of(context: Context) -> tuple[RowReport, ...]:
    """Return the rows of the last report."""
    return context.report.rows if context.report else ()


def findings(context: Context, check: str) -> Iterator[Finding]:
    """Yield the findings of a check that was asked in the last report, certified rows first."""
    rows = sorted(rows_of(context), key=lambda row: row.verdict != "certified")
    for row in rows:
        answered = (Status.PASSED, Status.FAILED)
        yield from (one for one in row.findings if one.check == check and one.status in answered)


def flash_attn_wheel(context: Context) -> Path:
    """Return a flash-attn wheel of this machine: from the wheelhouses, else from the ones that were built here."""
    folders = [*context.wheelhouses, *sorted((paths.state_dir() / "wheelhouse").glob("*"))]
    for folder in folders:
        for path in sorted(folder.glob("flash_attn-*.whl")):
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


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


FUNCTIONS: dict[str, Measure] = {
    function.__name__: function
    for function in (
        driver_minimum,
        toolkit_beside_torch,
        torch_builds,
        cublaslt_soname,
        shfl_declarations,
        flash_attn_compiler,
        nvjitlink_symbol,
        flash_attn_docstring,
        gpu_names,
        bf16_product,
        timeit_syntax,
        soak,
        environment_switches,
        arithmetic_floor,
        memory,
    )
}
