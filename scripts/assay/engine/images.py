"""Looks at images in the engine, names them, and carries files and whole images in and out."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import requests
from docker.api import APIClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from assay.engine.layers import Layer, layers_of, together
from assay.engine.owner import LABEL, owner, remove
from assay.engine.stream import CHUNK_BYTES, engine_error
from assay.errors import EngineError, IngredientError


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image in the engine.

    size: bytes of its unpacked layers; an engine with containerd's image store counts whole blocks of its disk.
    layers: diff ids from the base up.
    """

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    layers: tuple[str, ...]
    labels: Mapping[str, str]
    environment: Mapping[str, str]


def find(api: APIClient, reference: str) -> Image | None:
    """Return an image by name or id, None when the engine does not hold it."""
    try:
        raw: dict[str, Any] = api.inspect_image(reference)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"looking for image {reference}") from error
    config = raw.get("Config") or {}
    return Image(
        id=raw["Id"],
        tags=tuple(raw.get("RepoTags") or ()),
        digests=tuple(raw.get("RepoDigests") or ()),
        size=_unpacked_bytes(api, raw),
        layers=tuple(raw["RootFS"].get("Layers") or ()),
        labels=config.get("Labels") or {},
        # An entry without `=`, as `docker import --change` lets in, sets nothing.
        environment=dict(entry.split("=", 1) for entry in config.get("Env") or [] if "=" in entry),
    )


def _unpacked_bytes(api: APIClient, raw: Mapping[str, Any]) -> int:
    """Return the size of an image that was inspected.

    With containerd's image store, which alone tells a descriptor, `Size` is that of the packed layers: about half.
    """
    if not raw.get("Descriptor"):
        return int(raw["Size"])
    try:
        history: list[dict[str, Any]] = api.history(raw["Id"])  # type: ignore[no-untyped-call]
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"reading the history of image {raw['Id']}") from error
    return sum(int(entry["Size"]) for entry in history)


def get(api: APIClient, reference: str) -> Image:
    """Return an image by name or id. Raises IngredientError when the engine does not hold it."""
    image = find(api, reference)
    if image is None:
        raise IngredientError(
            f"image {reference} is not in the engine; build it, `docker pull` it or `docker load` it there first"
        )
    return image


def tag(api: APIClient, image: str, reference: str) -> None:
    """Give an image a further name, `repository:tag`."""
    repository, name = split_reference(reference)
    try:
        api.tag(image, repository, name)
    except ImageNotFound as error:
        raise IngredientError(f"image {image} is not in the engine") from error
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"naming image {image} {reference}") from error


def split_reference(reference: str) -> tuple[str, str]:
    """Split `registry:5000/name:tag` into repository and tag; the tag is `latest` where none is given."""
    head, colon, name = reference.rpartition(":")
    return (head, name) if colon and "/" not in name else (reference, "latest")


def pull(api: APIClient, reference: str) -> Image:
    """Fetch an image from its registry. Raises IngredientError with the registry's words when it cannot be had."""
    try:
        if "@" in reference:
            api.pull(reference)
        else:
            api.pull(*split_reference(reference))
    except APIError as error:
        raise IngredientError(f"image {reference} could not be pulled: {error.explanation or error}") from error
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"pulling {reference}") from error
    return get(api, reference)


def import_tar(api: APIClient, archive: IO[bytes], reference: str, changes: Sequence[str] = ()) -> Image:
    """Make an image of one layer from a root file system's tar stream; `changes` are instructions (`CMD [...]`)."""
    repository, name = split_reference(reference)
    params = {"fromSrc": "-", "repo": repository, "tag": name, "changes": list(changes)}
    chunks = iter(lambda: archive.read(CHUNK_BYTES), b"")
    try:
        # Not the SDK's own call: it sends a stream of known length both as it is and as chunks.
        answer = api.post(f"{api.base_url}/v{api.api_version}/images/create", params=params, data=chunks, timeout=None)
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"importing {reference}") from error
    if not answer.ok or '"error"' in answer.text:
        raise EngineError(f"the Docker engine could not import {reference}: {answer.text.strip()}")
    return get(api, reference)


def save(api: APIClient, references: Sequence[str], to: Path) -> None:
    """Write images as one `docker load` archive, complete or not at all."""
    try:
        url = f"{api.base_url}/v{api.api_version}/images/get"
        with api.get(url, params={"names": references}, stream=True) as stream:
            stream.raise_for_status()
            with _whole_file(to) as out:
                shutil.copyfileobj(cast("IO[bytes]", stream.raw), out, CHUNK_BYTES)
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"saving {', '.join(references)}") from error


def copy_out(api: APIClient, image: str, path: str, to: Path) -> None:
    """Copy a file, or a folder's content, out of an image without running anything.

    to: the file to write, or the folder to fill; made with its parents.
    Raises IngredientError when the image or the path in it is not there.
    """
    try:
        # `/` is never run: the container is only created, which needs some command where the image names none.
        container = api.create_container(image, command=["/"], labels={LABEL: owner()}, use_config_proxy=False)["Id"]
    except ImageNotFound as error:
        raise IngredientError(f"image {image} is not in the engine") from error
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"opening image {image}") from error
    try:
        chunks, _ = api.get_archive(container, path)
        with tempfile.TemporaryFile() as archive:
            for chunk in chunks:
                archive.write(chunk)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as members:
                _unpack(members, to)
    except NotFound as error:
        raise IngredientError(f"{path} is not in image {image}") from error
    except (requests.RequestException, DockerException) as error:
        raise engine_error(error, f"copying {path} out of {image}") from error
    finally:
        remove(api, container)


def _unpack(archive: tarfile.TarFile, to: Path) -> None:
    """Unpack the engine's archive, whose first member is what was asked for. Only files and folders come out."""
    top, *rest = archive.getmembers()
    if top.isfile():
        to.parent.mkdir(parents=True, exist_ok=True)
        _write(archive, top, to)
        return
    to.mkdir(parents=True, exist_ok=True)
    for member in rest:
        place = to / Path(member.name).relative_to(top.name)
        if ".." in place.relative_to(to).parts:
            raise EngineError(f"the engine's archive names {member.name!r}, outside of the folder that was asked for")
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
        elif member.isfile():
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(archive, member, place)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, to: Path) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise EngineError(f"the engine's archive holds no content for {member.name!r}")
    with _whole_file(to) as out:
        shutil.copyfileobj(content, out, CHUNK_BYTES)
    to.chmod(member.mode & 0o777)


@contextmanager
def _whole_file(to: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when it is complete."""
    with tempfile.NamedTemporaryFile(dir=to.parent, prefix=f".{to.name}.", delete=False) as out:
        try:
            yield cast("IO[bytes]", out)
            out.flush()
            Path(out.name).replace(to)
            to.chmod(0o666 & ~_umask())
        except BaseException:
            Path(out.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def storage(api: APIClient, references: Iterable[str]) -> dict[str, int]:
    """Return the bytes that a set of images takes in the engine (`total`), and what sharing layers saves (`shared`)."""
    stacks: list[Sequence[Layer]] = []
    for image in {image.id: image for image in (get(api, reference) for reference in references)}.values():
        history: list[dict[str, Any]] = api.history(image.id)  # type: ignore[no-untyped-call]
        stacks.append(layers_of(history, image.layers))
    total = together(stacks)
    return {"total": total, "shared": sum(layer.size for stack in stacks for layer in stack) - total}
