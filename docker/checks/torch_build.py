"""Does torch import, and is it the build that the row names."""

from __future__ import annotations

from . import machine_code, subject
from .framework import Answer, Expect, check, failed, passed

IMPORT_SECONDS = 150.0  # a cold disk: libtorch_cuda.so alone is 1.4 GB


@check(
    "torch.import",
    "Does `import torch` work, and can it add two numbers?",
    timeout=IMPORT_SECONDS + 10,
)
def imports(expect: Expect) -> Answer:
    """Import torch in an interpreter of its own; a crash there is a failed import, with the signal named."""
    required = "`import torch` works"
    facts = subject.attempt(
        required,
        "import torch\n"
        "report({'version': torch.__version__, 'file': torch.__file__, 'sum': (torch.ones(1) + 1).item()})\n",
        IMPORT_SECONDS,
    )
    if isinstance(facts, Answer):
        return facts
    if facts["sum"] != 2.0:
        return failed(required, f"torch computes 1 + 1 = {facts['sum']}")
    return passed(required, f"torch {facts['version']} from {facts['file']}", **facts)


@check(
    "torch.version",
    "Is it the torch build that the row names: version, CUDA, C++ ABI, architectures?",
    needs=("torch.import",),
)
def version(expect: Expect) -> Answer:
    """Compare what torch says of itself with the releases table."""
    import torch

    build = expect["torch"]
    wanted = {key: build[key] for key in ("version", "cuda", "cxx11_abi", "archs") if build.get(key) is not None}
    measured = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cxx11_abi": bool(torch._C._GLIBCXX_USE_CXX11_ABI),
        "archs": sorted(architectures()[0]),
    }
    if "archs" in wanted:
        wanted["archs"] = sorted(wanted["archs"])
    wrong = [f"{key} is {measured[key]!r}, not {value!r}" for key, value in wanted.items() if measured[key] != value]
    required = ", ".join(f"{key} {value}" for key, value in wanted.items() if key in ("version", "cuda"))
    facts = {**measured, "git": torch.version.git_version}
    if wrong:
        return failed(required, "; ".join(wrong), **facts)
    abi = "C++11" if measured["cxx11_abi"] else "pre-C++11"
    return passed(required, f"torch {torch.__version__}, CUDA {torch.version.cuda}, {abi} ABI", **facts)


@check(
    "torch.kernels",
    "Does torch's machine code run on every GPU of the row?",
    needs=("torch.import",),
    applies=lambda expect: bool(expect["gpus"]),
)
def kernels(expect: Expect) -> Answer:
    """Apply CUDA's binary-compatibility rule to the architectures that torch was compiled for."""
    machine, portable = architectures()
    return machine_code.answer_for(expect["gpus"], machine=machine, portable=portable, subject="torch")


def architectures() -> tuple[list[str], list[str]]:
    """Return the architectures of torch's machine code (`80`, `90a`) and of its PTX, as its build says."""
    import torch

    flags = torch._C._cuda_getArchFlags().split()
    return (
        [flag[3:] for flag in flags if flag.startswith("sm_")],
        [flag[8:] for flag in flags if flag.startswith("compute_")],
    )
