"""Print a CDI specification of this machine's GPUs, for an engine on a host without NVIDIA's container toolkit.

    PYTHONPATH=scripts python3 tests/gpu/cdi_specification.py > /etc/cdi/nvidia.json

What NVIDIA's own tool writes holds more (graphics, hooks that run ldconfig); this is what CUDA needs: the device nodes,
and the driver's libraries in the folder where a container's loader looks by itself.
"""

# ruff: noqa: T201
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assay.engine.gpu import CDI_KIND
from assay.engine.gpu_facts import driver_files, host_gpus

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
SHARED = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


def specification() -> dict[str, Any]:
    """Return the specification: one device a GPU, by index and by UUID."""
    gpus = host_gpus()
    names = [(name, gpu) for gpu in gpus for name in (str(gpu.index), gpu.uuid)]
    return {
        "cdiVersion": "0.5.0",
        "kind": CDI_KIND,
        "devices": [
            {"name": name, "containerEdits": {"deviceNodes": [{"path": f"/dev/nvidia{gpu.minor}"}]}}
            for name, gpu in names
        ],
        "containerEdits": {
            "deviceNodes": [{"path": path} for path in SHARED if Path(path).exists()],
            "mounts": [
                {
                    "hostPath": str(Path(path).resolve()),
                    "containerPath": f"/usr/bin/{name}" if name == "nvidia-smi" else f"{LIBRARIES}/{name}",
                    "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
                }
                for name, path in sorted(driver_files().items())
            ],
        },
    }


if __name__ == "__main__":
    print(json.dumps(specification(), indent=1))
