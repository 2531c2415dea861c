"""Everything that talks to the Docker engine: find or start one, build, run, look at images, reach the GPU.

`Engine` is the entry; the modules behind it do one job each. Nothing outside this package talks to the engine.
"""

from assay.engine.connect import Engine
from assay.engine.containers import ContainerResult, Mount
from assay.engine.events import BuildEvent, OnEvent
from assay.engine.gpu import GpuAccess, HostGpu
from assay.engine.images import Image
from assay.engine.steps import part_of_line, part_of_step

__all__ = [
    "BuildEvent",
    "ContainerResult",
    "Engine",
    "GpuAccess",
    "HostGpu",
    "Image",
    "Mount",
    "OnEvent",
    "part_of_line",
    "part_of_step",
]
