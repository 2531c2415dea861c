"""Builds an image from a context folder, by BuildKit or by the classic builder, and says whose fault a failure is."""

from __future__ import annotations

import base64
import json
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from docker.api import APIClient

from assay.engine.classic import ClassicProgress
from assay.engine.context import pack
from assay.engine.events import Mask, OnEvent
from assay.engine.progress import Progress
from assay.engine.steps import UNKNOWN_PART, of_the_dockerfile, part_of_line, part_of_step
from assay.engine.stream import build_stream
from assay.engine.trace import decode
from assay.errors import AssayError, BuildFailed, EngineError, IngredientError

TRACE = "moby.buildkit.trace"
IMAGE_ID = "moby.image.id"
CONTEXT_IN_MEMORY_BYTES = 64 << 20

DISK_FULL = re.compile(r"no space left on device", re.IGNORECASE)
# The engine's own troubles, in the words of BuildKit, containerd and runc.
ENGINE_TROUBLE = re.compile(
    r"no space left on device|transport is closing|error reading from server|context canceled|input/output error"
    r"|too many open files|cannot allocate memory|code = Unavailable|shim .* exited"
    r"|database not open|connection reset by peer",
    re.IGNORECASE,
)
# The command ran and said no: `exit code: 1` (BuildKit), `returned a non-zero code: 1` (classic).
COMMAND_FAILED = re.compile(r"(exit code|non-zero code): \d+\s*$")
IMAGE_STEP = re.compile(r"^\[(internal|auth)\] load metadata for (?P<image>\S+)|^\[[^\]]*\] FROM (?P<base>\S+)")
# The image that a `# syntax=` line names, which reads the Dockerfile.
FRONTEND_STEP = re.compile(r"^resolve image config for (?:docker-image://)?(?P<image>\S+)")
# How an engine fails that has containerd's image store and looks a context sent to it up as if it were a host
# (moby's issue 47717; seen with Engine 26.1, no longer with 28.5).
LOST_CONTEXT = re.compile(r"^failed to read downloaded context\b")
LOST_CONTEXT_ADVICE = (
    "this version cannot build from its API with containerd's image store: use Engine 28.5 or newer, or set"
    ' `"features": {"containerd-snapshotter": false}` in its daemon.json'
)
CLASSIC_IMAGE_STEP = re.compile(r"^Step \d+/\d+ : FROM (?P<image>\S+)")
DOCKERFILE_LINE = re.compile(r"(?:parse error )?(?:on )?line (?P<line>\d+):")


def build(
    api: APIClient,
    context: Path,
    *,
    buildkit: bool,
    dockerfile: str,
    tag: str | None,
    target: str | None,
    labels: Mapping[str, str],
    build_args: Mapping[str, str],
    network: str | None,
    no_cache: bool,
    cancel: threading.Event | None,
    on_event: OnEvent,
    log: Path,
    mask: Mask,
) -> str:
    """Build `context` and return the image's id (`sha256:...`); every line of the build goes to `log`.

    mask: takes the machine's passwords out of all that the build says, before it is logged, told or raised.

    Raises BuildFailed when a step of the Dockerfile fails, IngredientError when a base image cannot be had, EngineError
    for the engine's own trouble, Cancelled when `cancel` is set.
    """
    dockerfile_text = (context / dockerfile).read_text(encoding="utf-8")
    params = {
        "version": "2" if buildkit else "1",
        "dockerfile": dockerfile,
        "labels": json.dumps(dict(labels)),
        "buildargs": json.dumps(dict(build_args)),
        "rm": "1",
        "forcerm": "1",  # the classic builder leaves the container of a failed step behind otherwise
        **({"t": tag} if tag else {}),
        **({"target": target} if target else {}),
        **({"networkmode": network} if network else {}),
        **({"nocache": "1"} if no_cache else {}),
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.SpooledTemporaryFile(max_size=CONTEXT_IN_MEMORY_BYTES) as archive,
        log.open("w", encoding="utf-8") as log_file,
    ):
        pack(context, archive)
        archive.seek(0)
        with build_stream(api, params, archive, cancel) as messages:
            read = _read_buildkit if buildkit else _read_classic
            return read(messages, dockerfile_text, on_event, log_file, mask)


def _read_buildkit(
    messages: Iterator[dict[str, Any]], dockerfile_text: str, on_event: OnEvent, log: TextIO, mask: Mask
) -> str:
    progress = Progress(on_event, log, mask)
    image = ""
    for message in messages:
        if message.get("id") == TRACE:
            progress.feed(decode(base64.b64decode(message["aux"])))
        elif message.get("id") == IMAGE_ID:
            image = message["aux"]["ID"]
        elif "error" in message:
            error = mask(message["error"])
            log.write(f"ERROR: {error}\n")
            step = progress.failed
            raise failure(
                error,
                step=step.name if step else "",
                step_error=step.error if step else "",
                tail=list(step.tail) if step else [],
                dockerfile_text=dockerfile_text,
            )
    if not image:
        raise _went_away([step.name for step in progress.running])
    return image


def _read_classic(
    messages: Iterator[dict[str, Any]], dockerfile_text: str, on_event: OnEvent, log: TextIO, mask: Mask
) -> str:
    progress = ClassicProgress(on_event, log, mask=mask)
    image = ""
    for message in messages:
        progress.feed(message)
        if "ID" in (message.get("aux") or {}):
            image = message["aux"]["ID"]
        elif "error" in message:
            error = mask(message["error"])
            progress.finish(error)
            raise failure(
                error,
                step=progress.step,
                step_error=error,
                tail=list(progress.tail),
                dockerfile_text=dockerfile_text,
            )
    if not image:
        raise _went_away([progress.step] if progress.step else [])
    progress.finish()
    return image


def failure(error: str, *, step: str, step_error: str, tail: Sequence[str], dockerfile_text: str) -> AssayError:
    """Say whose fault a failed build is.

    error: the engine's last word on the build.
    step, step_error, tail: the step that failed, what the engine says of it, and the last lines that it printed; empty
    when none did.
    """
    about = step_error or error
    if DISK_FULL.search(error) or any(DISK_FULL.search(line) for line in tail):
        where = f" in step {step!r}" if step else ""
        return EngineError(f"the engine's disk is full{where}: free some space there (see `docker system df`)")
    image = IMAGE_STEP.match(step) or CLASSIC_IMAGE_STEP.match(step)
    if image:
        name = next(group for group in (image.groupdict().get("image"), image.groupdict().get("base")) if group)
        return IngredientError(f"base image {name} could not be had: {about}")
    if LOST_CONTEXT.search(error):
        return EngineError(f"the Docker engine lost the build's context ({about}); {LOST_CONTEXT_ADVICE}")
    if frontend := FRONTEND_STEP.match(step):
        return IngredientError(
            f"{frontend['image']}, which the Dockerfile's `# syntax=` line names, could not be had: {about}; the engine"
            " fetches it for every build: let it reach the registry, or leave the line out"
        )
    # Only an instruction can say no. All else that has a name is what the engine does around them: it fetches the
    # context, makes folders for mounts, exports the image.
    own = not step or of_the_dockerfile(step)
    if not own or (not COMMAND_FAILED.search(about) and ENGINE_TROUBLE.search(about)):
        return EngineError(f"the Docker engine failed in step {step!r}: {about}")
    if step:
        return BuildFailed(part=part_of_step(dockerfile_text, step), step=step, log=[*tail, about])
    line = DOCKERFILE_LINE.search(error)
    part = part_of_line(dockerfile_text, int(line["line"])) if line else UNKNOWN_PART
    return BuildFailed(part=part, step="Dockerfile", log=[error])


def _went_away(running: Sequence[str]) -> EngineError:
    during = f" during {' and '.join(repr(step) for step in running)}" if running else ""
    return EngineError(
        f"the Docker engine ended the connection{during} without an image or an error: it stopped. "
        "`assay engine status` tells whether it is back; run this again then, what was built is kept"
    )
