"""`Engine`: a Docker engine that answers, as the rest of the package sees it."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO

import docker
from docker.api import APIClient

from assay.engine import build as builds
from assay.engine import containers, find, gpu, gpu_facts, images, owner
from assay.engine.containers import GIB, ContainerResult, Mount
from assay.engine.events import Mask, OnEvent, Say, say_on_stderr
from assay.engine.gpu import GpuAccess, HostGpu
from assay.redact import without_passwords


class Engine:
    """A Docker engine that answers. Safe to use from several threads."""

    def __init__(self, connection: find.Connection) -> None:
        self._connection = connection
        self.version: str = connection.version
        self.host: str = connection.host
        self.origin: find.Origin = connection.origin
        self.buildkit: bool = connection.buildkit

    @classmethod
    def connect(cls, start: bool = True, on_note: Say = say_on_stderr) -> Engine:
        """Find an engine that answers, starting a private one where allowed and possible.

        Looks at DOCKER_HOST, the Docker context, the default socket and the private engine of an earlier run.
        on_note: gets a line for whatever takes time or changes the machine.
        Raises EngineError with the command that helps when there is none.
        """
        engine = cls(find.find(start=start, say=on_note))
        owner.remove_left_behind(engine.api)
        return engine

    def close(self) -> None:
        """Close the connections to the engine. The engine itself goes on."""
        self._connection.client.close()

    @property
    def client(self) -> docker.DockerClient:
        """The SDK's client, for what this class does not offer."""
        return self._connection.client

    @property
    def api(self) -> APIClient:
        """The SDK's low-level client."""
        return self._connection.client.api

    @property
    def private(self) -> bool:
        """True when this is the engine that assay started itself."""
        return self.origin == "private"

    @property
    def local(self) -> bool:
        """True when the engine runs on this machine, so that it sees this machine's files and devices."""
        return self.host.startswith("unix://")

    @property
    def supports_copy_link(self) -> bool:
        """True when the engine's own Dockerfile frontend knows `COPY --link` (Engine 23 and newer, BuildKit only)."""
        major = re.match(r"\d+", self.version)
        return self.buildkit and major is not None and int(major[0]) >= 23

    def build(
        self,
        context: Path,
        *,
        dockerfile: str = "Dockerfile",
        tag: str | None = None,
        target: str | None = None,
        labels: Mapping[str, str] | None = None,
        build_args: Mapping[str, str] | None = None,
        network: str | None = "host",
        no_cache: bool = False,
        cancel: threading.Event | None = None,
        on_event: OnEvent = lambda event: None,
        log: Path,
        mask: Mask = without_passwords,
    ) -> str:
        """Build a context folder and return the image's id. See `build.build` for the arguments and the errors."""
        return builds.build(
            self.api,
            context,
            buildkit=self.buildkit,
            dockerfile=dockerfile,
            tag=tag,
            target=target,
            labels=labels or {},
            build_args=build_args or {},
            network=network,
            no_cache=no_cache,
            cancel=cancel,
            on_event=on_event,
            log=log,
            mask=mask,
        )

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount] = (),
        gpu: GpuAccess | None = None,
        network: str = "none",
        read_only: bool = True,
        memory_bytes: int = 8 * GIB,
        pids: int = 1024,
        tmp_bytes: int = 2 * GIB,
        timeout: float,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        user: str | None = None,
        cancel: threading.Event | None = None,
    ) -> ContainerResult:
        """Run a command in a hardened container that is always removed. See `containers.run`."""
        return containers.run(
            self.api,
            image,
            command,
            mounts=mounts,
            gpu=gpu,
            network=network,
            read_only=read_only,
            memory_bytes=memory_bytes,
            pids=pids,
            tmp_bytes=tmp_bytes,
            timeout=timeout,
            on_line=on_line,
            environment=environment,
            working_dir=working_dir,
            user=user,
            cancel=cancel,
        )

    def find_image(self, reference: str) -> images.Image | None:
        """Return an image by name or id, None when the engine does not hold it."""
        return images.find(self.api, reference)

    def image_id(self, reference: str) -> str | None:
        """Return the id of an image by name, None when the engine does not hold it."""
        image = images.find(self.api, reference)
        return image.id if image else None

    def inspect(self, reference: str) -> images.Image:
        """Return an image by name or id. Raises IngredientError when the engine does not hold it."""
        return images.get(self.api, reference)

    def tag(self, image: str, reference: str) -> None:
        """Give an image a further name, `repository:tag`."""
        images.tag(self.api, image, reference)

    def pull(self, reference: str) -> images.Image:
        """Fetch an image from its registry. Raises IngredientError when it cannot be had."""
        return images.pull(self.api, reference)

    def import_tar(self, archive: IO[bytes], reference: str, changes: Sequence[str] = ()) -> images.Image:
        """Make an image of one layer from a root file system's tar stream."""
        return images.import_tar(self.api, archive, reference, changes)

    def save(self, references: Sequence[str], to: Path) -> None:
        """Write images as one `docker load` archive."""
        images.save(self.api, references, to)

    def copy_out(self, image: str, path: str, to: Path) -> None:
        """Copy a file, or a folder's content, out of an image without running anything. See `images.copy_out`."""
        images.copy_out(self.api, image, path, to)

    def storage(self, references: Iterable[str]) -> dict[str, int]:
        """Return the bytes that images take together (`total`), and those saved by sharing layers (`shared`)."""
        return images.storage(self.api, references)

    def free_bytes(self) -> int | None:
        """Return the free bytes on the engine's disk, None when it is another machine's."""
        root = Path(self.api.info()["DockerRootDir"])
        try:
            return shutil.disk_usage(root).free if self.local else None
        except OSError:  # the engine's folders are open to root only
            return None

    def host_gpus(self) -> tuple[HostGpu, ...]:
        """Return the NVIDIA GPUs of this machine, as its driver lists them."""
        return gpu_facts.host_gpus()

    def gpu_access(self, force: str | None = None, capabilities: Collection[str] = ()) -> GpuAccess | None:
        """Choose a GPU and the way to it, None when there is none. See `gpu.choose` for arguments and errors."""
        return gpu.choose(self._gpu_facts, force, capabilities)

    def why_no_gpu(self) -> str:
        """Return why `gpu_access` gave none."""
        return gpu.why_none(self._gpu_facts) if self.local else "the engine is on another machine"

    @cached_property  # a driver in trouble takes a minute to say nothing: once is enough
    def _gpu_facts(self) -> gpu.GpuFacts:
        return gpu_facts.gather(self.api, local=self.local)
