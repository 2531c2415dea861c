"""Compile flash-attn wheels that are wrong on purpose, for the rows of `matrix.gpu-host.toml` that must be rejected.

Each variant is the real flash-attn 2.8.3 source with one thing changed, reduced to head dim 64 in bf16 so that it
compiles in minutes: what the checks then meet is real machine code, not an imitation.

    python3 build_variants.py --sdist flash_attn-2.8.3.tar.gz --out variants sm80-only scaled

Needs nvcc, g++, and the interpreter that runs it has the torch that the wheels are for: its headers, and the libraries
that the extension is linked with. No GPU: each extension is imported once it is linked, and none of its kernels run.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HEAD_DIMS = (32, 64, 96, 128, 192, 256)
DTYPES = {"bf16": "cutlass::bfloat16_t", "fp16": "cutlass::half_t"}
BUILT = (64, "bf16")  # the only kernels that are compiled; see `refusals`

MACROS = tuple(f"-DFLASHATTENTION_DISABLE_{feature}" for feature in ("DROPOUT", "ALIBI", "SOFTCAP", "LOCAL"))
# Both compilers get this one, or neither: in one of them alone, the guard and the kernel disagree.
NO_BACKWARD = "-DFLASHATTENTION_DISABLE_BACKWARD"
NVCC_FLAGS = (
    "-O3", "-std=c++17", "--use_fast_math", "--expt-relaxed-constexpr", "--expt-extended-lambda",
    "-U__CUDA_NO_HALF_OPERATORS__", "-U__CUDA_NO_HALF_CONVERSIONS__",
    "-U__CUDA_NO_HALF2_OPERATORS__", "-U__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-Xcompiler", "-fPIC", "-diag-suppress=186,221",
)  # fmt: skip
HOST_FLAGS = ("-O2", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-w")
# What the extension asks the loader for, as flash-attn's own setup does: without them it would import only in a process
# that has already made torch's symbols global.
TORCH_LIBRARIES = ("c10", "torch_cpu", "torch_python", "c10_cuda", "torch_cuda")


@dataclass(frozen=True)
class Variant:
    """One wrong wheel.

    arch: the only architecture in its machine code. patch: (file below csrc/flash_attn/src, text, replacement).
    backward: whether the extension offers the backward pass, and whether its kernels do anything.
    """

    arch: str
    patch: tuple[str, str, str] | None = None
    backward: tuple[bool, bool] = (False, False)


VARIANTS = {
    # An image for A100s that somebody starts on an H100: sm_80 machine code does not run on 9.0.
    "sm80-only": Variant("80"),
    # Every output row is divided by its softmax sum; 1.01 here is an error that no import or speed check can see.
    "scaled": Variant(
        "90", ("softmax.h", "? 1.f : 1.f / sum;", "? 1.f : 1.01f / sum;")
    ),
    # Sound, with the backward pass: it shows that right gradients pass.
    "backward": Variant("90", backward=(True, True)),
    # The macro that leaves the backward kernels out reached nvcc and not the host compiler: no error is raised, the
    # kernels have no body, and gradients are what was in memory.
    "empty-backward": Variant("90", backward=(True, False)),
}  # fmt: skip


def main() -> int:
    """Compile the variants that are named; every one when none is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--sdist", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cuda", type=Path, default=Path("/usr/local/cuda"))
    parser.add_argument("--also-include", type=Path, action="append", default=[])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    unknown = sorted(set(options.variants) - set(VARIANTS))
    if unknown:
        parser.error(f"unknown variant {', '.join(unknown)}; there are: {', '.join(VARIANTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="variants-") as work:
        with tarfile.open(options.sdist) as archive:
            archive.extractall(work)  # noqa: S202  (the sdist is pinned by hash where it is downloaded)
        source = next(Path(work).glob("flash_attn-*"))
        for name in options.variants or VARIANTS:
            print(build(name, source, options), flush=True)  # noqa: T201
    return 0


def build(name: str, source: Path, options: argparse.Namespace) -> Path:
    """Compile one variant and return its wheel."""
    variant = VARIANTS[name]
    tree = source.parent / name
    shutil.copytree(source / "csrc" / "flash_attn", tree)
    if variant.patch:
        file, old, new = variant.patch
        text = (tree / "src" / file).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{file}: expected {old!r} once, found it {text.count(old)} times")
        (tree / "src" / file).write_text(text.replace(old, new))
    offered, filled = variant.backward
    (tree / "refusals.cpp").write_text(refusals(backward=offered))
    head_dim, dtype = BUILT
    kernels = [
        tree / "src" / f"flash_fwd_{split}hdim{head_dim}_{dtype}_{causal}sm80.cu"
        for split in ("", "split_")
        for causal in ("", "causal_")
    ]
    if offered:
        kernels += [tree / "src" / f"flash_bwd_hdim{head_dim}_{dtype}_{causal}sm80.cu" for causal in ("", "causal_")]
    include = includes(options, tree, source)
    nvcc = [str(options.cuda / "bin" / "nvcc"), *NVCC_FLAGS, *MACROS, *include]
    nvcc.append(f"-gencode=arch=compute_{variant.arch},code=sm_{variant.arch}")
    nvcc += [] if filled else [NO_BACKWARD]
    host = [
        "g++", *HOST_FLAGS, *MACROS, *include,
        "-DTORCH_EXTENSION_NAME=flash_attn_2_cuda", "-DTORCH_API_INCLUDE_EXTENSION_H",
        *([] if offered else [NO_BACKWARD]),
    ]  # fmt: skip
    commands = [[*host, "-c", str(tree / file), "-o", str(tree / f"{file}.o")]
                for file in ("flash_api.cpp", "refusals.cpp")]  # fmt: skip
    commands += [[*nvcc, "-c", str(file), "-o", f"{file}.o"] for file in kernels]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda command: subprocess.run(command, check=True), commands))
    extension = tree / f"flash_attn_2_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    objects = [command[-1] for command in commands]
    libraries = ["-L", str(torch_folder() / "lib"), *(f"-l{library}" for library in TORCH_LIBRARIES)]
    libraries += ["-L", str(options.cuda / "lib64"), "-l:libcudart.so." + cudart_major(options.cuda)]
    # --as-needed, as distributions' compilers have it: ask for what is used and no more.
    link = ["g++", "-shared", "-s", "-o", str(extension), *objects, "-Wl,--as-needed", *libraries]
    subprocess.run(link, check=True)
    # An undefined symbol shows here: a wheel that fails at import would be rejected, but not for what it is to show.
    subprocess.run([sys.executable, "-c", "import torch, flash_attn_2_cuda"], cwd=tree, check=True)
    return pack(name, source, extension, options)


def includes(options: argparse.Namespace, tree: Path, source: Path) -> list[str]:
    """Return the -I options: flash-attn, CUTLASS, torch, Python, CUDA, then what the caller adds."""
    torch_include = torch_folder() / "include"
    folders = [
        tree, tree / "src", source / "csrc" / "cutlass" / "include",
        torch_include, torch_include / "torch" / "csrc" / "api" / "include",
        Path(sysconfig.get_path("include")),
        options.cuda / "include", options.cuda / "include" / "cccl", *options.also_include,
    ]  # fmt: skip
    return [part for folder in folders for part in ("-isystem", str(folder))]


def torch_folder() -> Path:
    """Return the folder of the running interpreter's torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise SystemExit(f"{sys.executable} has no torch: run this with the Python that the wheels are for")
    return Path(spec.origin).parent


def refusals(*, backward: bool) -> str:
    """Return the source of every specialisation that is not compiled: each raises an error that says so.

    backward: whether the backward pass of what is compiled is compiled, too.
    """
    lines = ["#include <cuda_runtime.h>", "#include <c10/util/Exception.h>",
             '#include "namespace_config.h"', "#include <cutlass/numeric_types.h>",
             '#include "flash.h"', "namespace FLASH_NAMESPACE {"]  # fmt: skip
    for head_dim, dtype, causal in itertools.product(HEAD_DIMS, DTYPES, ("false", "true")):
        kernel = f"<{DTYPES[dtype]}, {head_dim}, {causal}>"
        refuse = f'TORCH_CHECK(false, "This flash attention build does not contain head dim {head_dim} in {dtype}.");'
        if not (backward and (head_dim, dtype) == BUILT):
            lines.append(f"template<> void run_mha_bwd_{kernel}(Flash_bwd_params &, cudaStream_t) {{ {refuse} }}")
        if (head_dim, dtype) != BUILT:
            lines += [
                f"template<> void {function}{kernel}(Flash_fwd_params &, cudaStream_t) {{ {refuse} }}"
                for function in ("run_mha_fwd_", "run_mha_fwd_splitkv_dispatch")
            ]
    return "\n".join([*lines, "}", ""])


def cudart_major(cuda: Path) -> str:
    """Return the major version in libcudart's soname: `13`."""
    library = next((cuda / "lib64").glob("libcudart.so.[0-9]*"))
    return library.name.split(".so.")[1].split(".")[0]


def pack(name: str, source: Path, extension: Path, options: argparse.Namespace) -> Path:
    """Zip flash-attn's Python files and the extension into a wheel whose local version names the variant."""
    version = f"2.8.3+{name.replace('-', '.')}"
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    tag = f"{python}-{python}-linux_x86_64"
    info = f"flash_attn-{version}.dist-info"
    files: dict[str, bytes] = {
        str(path.relative_to(source)): path.read_bytes() for path in sorted((source / "flash_attn").rglob("*.py"))
    }
    files[extension.name] = extension.read_bytes()
    metadata = ("Metadata-Version: 2.1", "Name: flash_attn", f"Version: {version}", "Requires-Dist: torch", "")
    files[f"{info}/METADATA"] = "\n".join(metadata).encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = options.out / f"flash_attn-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0))  # no clock in the wheel
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


if __name__ == "__main__":
    raise SystemExit(main())
