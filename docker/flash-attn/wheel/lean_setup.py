"""Runs flash-attn's setup.py, in the current folder, with only the kernels asked for: `lean_setup.py RECIPE ARGS...`.

setup.py takes `CUDAExtension` from torch when it is run; here that name leads to a wrapper which replaces the list of
sources and adds the flags. So nothing of flash-attn's source is edited, and torch's own checks of compiler and CUDA
version stay in force.

RECIPE is a JSON file: head_dims, dtypes, archs, version (as the wheel will carry it).
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kernels
from torch.utils import cpp_extension

MAKE = cpp_extension.CUDAExtension


def lean(recipe: dict[str, Any]) -> Callable[..., Any]:
    """Return what stands in for `CUDAExtension`."""
    asked = kernels.Asked(
        head_dims=tuple(recipe["head_dims"]),
        dtypes=tuple(recipe["dtypes"]),
        archs=tuple(recipe["archs"]),
    )
    # Both compilers need every macro: where only one has it, the API's guard is missing while the kernel is empty, and
    # results are silently wrong.
    defines = [f"-D{macro}" for macro in kernels.MACROS]

    def make(name: str, sources: Sequence[str], **options: Any) -> Any:
        kept, absent = kernels.split(sources, asked)
        stand_in = Path(kernels.ABSENT_NAME)
        text = kernels.absent_source(absent, asked, recipe["version"])
        if not stand_in.exists() or stand_in.read_text(encoding="utf-8") != text:  # else ninja would compile it again
            stand_in.write_text(text, encoding="utf-8")
        flags: dict[str, list[str]] = options.pop("extra_compile_args")
        return MAKE(
            name=name,
            sources=[*kept, str(stand_in)],
            extra_compile_args={
                "cxx": [*flags["cxx"], *defines, "-g0"],
                "nvcc": [*flags["nvcc"], *defines],
            },
            extra_link_args=[*options.pop("extra_link_args", ()), "-Wl,--strip-all"],
            **options,
        )

    return make


if __name__ == "__main__":
    cpp_extension.CUDAExtension = lean(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    sys.argv = ["setup.py", *sys.argv[2:]]
    sys.path.insert(0, str(Path.cwd()))
    runpy.run_path("setup.py", run_name="__main__")
