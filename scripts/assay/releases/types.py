"""What one entry of each table holds; field comments with units are in the TOML files."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Version = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)*(\.post\d+)?$")]
Arch = Annotated[str, StringConstraints(pattern=r"^\d{2,3}[af]?$")]


class _Entry(BaseModel):
    """A table entry: kebab-case in the file, immutable, no key that nobody reads."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        populate_by_name=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class CudaRelease(_Entry):
    """A CUDA release, its component versions and the driver versions that belong to it."""

    name: Version
    aliases: tuple[Version, ...] = Field(default=(), strict=False)
    components: dict[str, Version]
    packages: dict[str, Version] = {}
    driver_shipped: Version
    driver_minimum: Version

    @property
    def short(self) -> str:
        """Major and minor version, as in `/usr/local/cuda-12.1`."""
        return ".".join(self.name.split(".")[:2])


class Compiler(_Entry):
    """An nvcc from a Debian package."""

    name: Version
    aliases: tuple[Version, ...] = Field(default=(), strict=False)
    version: Version
    suite: str
    component: str
    package: str
    gcc_max: int


class TorchBuild(_Entry):
    """A build of torch: what it was compiled for, and what its wheels pin."""

    version: str
    cuda: Version
    cuda_release: Version
    cxx11_abi: bool
    archs: tuple[Arch, ...] = Field(strict=False)
    ptx: tuple[Arch, ...] = Field(default=(), strict=False)
    pythons: tuple[Version, ...] = Field(strict=False)
    lock: str


class Gpu(_Entry):
    """A GPU model: capability, peak of dense bf16 in TFLOP/s (0: none), memory in GB, the driver's name for it."""

    name: str
    chip: str
    capability: Version
    bf16_tflops: float
    memory_gb: int
    device: str
