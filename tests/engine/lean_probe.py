"""Runs in a container that has torch and a lean wheel at /wheel: says as JSON what is in it and what it does.

No GPU is needed: the machine code is listed by `cuobjdump`, which triton ships, and a function that stands in for an
absent kernel looks at none of its arguments before it raises.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

ABSENT = "_ZN5flash12run_mha_fwd_IN7cutlass6half_tELi256ELb0EEEvRNS_16Flash_fwd_paramsEP11CUstream_st"
KERNEL = re.compile(r"(flash_\w+?_kernel)I\d+Flash_\w+_traitsILi(\d+)E\w*?cutlass(10bfloat16_t|6half_t)E")


def main() -> None:
    """Print the findings as one line."""
    (wheel,) = Path("/wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall("/tmp/wheel")
    (library,) = Path("/tmp/wheel").glob("flash_attn_2_cuda*.so")
    (triton,) = find_spec("triton").submodule_search_locations  # importing it would need setuptools
    cuobjdump = f"{triton}/backends/nvidia/bin/cuobjdump"
    listed = run(cuobjdump, "--list-elf", str(library)).stdout
    code = run(cuobjdump, "--dump-elf-symbols", str(library)).stdout
    child = run(sys.executable, __file__, str(library))
    sys.stdout.write(
        json.dumps(
            {
                "modules": re.findall(r"sm_\d+\w*(?=\.cubin)", listed),
                "kernels": sorted({"/".join(found) for found in KERNEL.findall(code)}),
                "absent": child.stderr.splitlines()[:4],
            }
        )
    )


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def call_absent(library: str) -> None:
    """Call a kernel that is not there: the C++ error ends this process, with its text on standard error."""
    import torch  # noqa: F401 - loads the libraries that the extension needs

    getattr(ctypes.CDLL(library), ABSENT)(None, None)


if __name__ == "__main__":
    call_absent(sys.argv[1]) if len(sys.argv) > 1 else main()
