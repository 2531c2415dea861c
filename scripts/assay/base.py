"""The base image of a row: made from Debian's packages, or what the engine has, or pulled.

`debian:bookworm` is bootstrapped with mmdebstrap from this machine's own apt sources, so that no image registry is
needed. It gets a name of assay's own, `localhost/assay/debian:bookworm`: the name `debian:bookworm` stays free for the
real one, and where the engine holds the real one, that is what rows are built on. A Dockerfile names what its row
names, and assay passes its own name as a build argument: no engine ever looks for ours in a registry, where
`assay/debian` would be somebody else's. Ours holds no apt sources: they would name this machine's mirror: build steps
mount them, and whoever derives an image from it brings their own.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.engine.events import BuildEvent, OnEvent, Say
from assay.errors import IngredientError
from assay.network import NetworkSettings
from assay.redact import without_passwords

if TYPE_CHECKING:
    from assay.engine import Engine
    from assay.engine.images import Image

DEFAULT = "debian:bookworm"
"""The base of rows that name none, and the one that shared layers are made on."""

BOOTSTRAPPED = {DEFAULT: "bookworm"}
"""Bases that can be made from packages: reference to suite."""

OWN_NAMES = "localhost/assay/"
"""What the names of assay's own bases begin with.

`localhost` would be this machine's own registry: a name there that the engine lacks is in nobody else's reach.
"""

# What Python's environments need; and the CA certificates that programs in the image will look for.
PACKAGES = ("ca-certificates", "python3", "python3-venv")

# 2023-06-10, the day bookworm was released: no file of the base is newer, whenever it is made.
SOURCE_DATE_EPOCH = "1686355200"

# What mmdebstrap copies from the machine, the options it was given, and what differs each time: none of it belongs in
# an image.
_CLEAN = (
    'rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/resolv.conf "$1"/etc/hostname '
    '"$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap '
    '"$1"/var/log/* "$1"/var/cache/ldconfig/* "$1"/var/cache/debconf/*-old'
)

_CONFIG = ('ENV PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"', 'CMD ["bash"]')
_RECIPE_LABEL = "io.assay.base.recipe"
_STEP = "base"
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """The image that a row is built on.

    ref: the name that the build is given. id: the engine's own (`sha256:...`). digest: the registry's, where it came
    from one; else the id, which says as much. layers: those that every image built on it begins with.
    """

    ref: str
    id: str
    digest: str
    layers: tuple[str, ...] = ()


def reference(ref: str) -> str:
    """Return the name under which a build finds a base in the engine: assay's own for those that it can make."""
    return f"{OWN_NAMES}{ref}" if ref in BOOTSTRAPPED else ref


def recipe() -> str:
    """Return the sha256 of how bases are made: one made otherwise is made anew."""
    said = "\0".join((*PACKAGES, SOURCE_DATE_EPOCH, _CLEAN, *_CONFIG))
    return hashlib.sha256(said.encode()).hexdigest()


def ensure(
    engine: Engine, ref: str, network: NetworkSettings, on_event: OnEvent, *, installs_torch: bool = True
) -> BaseImage:
    """Return the base image of a row; the engine holds it afterwards.

    installs_torch: False for a row whose base brings torch: nothing is made on another base for it.
    Raises IngredientError, with what to do, when it can neither be made nor pulled; EngineError when the engine fails.
    """

    def say(line: str) -> None:
        on_event(BuildEvent(step=_STEP, status="progress", line=line))

    # Two rows that start together need one base, not two.
    with _ONE_AT_A_TIME:
        if ref in BOOTSTRAPPED:
            return _debian(engine, ref, network, say)
        if installs_torch and engine.supports_copy_link:
            # Layers that rows on different bases share are made on the default one.
            _debian(engine, DEFAULT, network, say)
        return _held_or_pulled(engine, ref, say)


def held(engine: Engine, ref: str) -> BaseImage | None:
    """Return the base image that `ensure` would return without making or pulling any, None where it would."""
    if ref not in BOOTSTRAPPED:
        image = engine.find_image(ref)
        return _describe(ref, image) if image else None
    image = engine.find_image(ref) or engine.find_image(reference(ref))
    if image is None or image.labels.get(_RECIPE_LABEL, recipe()) != recipe():
        return None
    return _describe(reference(ref), image)


def _debian(engine: Engine, ref: str, network: NetworkSettings, say: Say) -> BaseImage:
    """Return assay's name for a Debian base, pointing at the user's own image where the engine holds one."""
    name = reference(ref)
    own, real = engine.find_image(name), engine.find_image(ref)
    if real:
        if own is None or own.id != real.id:
            say(f"the engine holds {ref}: rows are built on it")
            engine.tag(real.id, name)
        return _describe(name, real)
    # An image of this name that assay did not make was given the name by somebody who wants it used.
    if own and own.labels.get(_RECIPE_LABEL, recipe()) == recipe():
        return _describe(name, own)
    try:
        return _describe(name, _bootstrap(engine, ref, network, say))
    except IngredientError as trouble:
        say(f"{trouble}; pulling {ref} instead")
        try:
            pulled = engine.pull(ref)
        except IngredientError as error:
            raise IngredientError(
                f"the base {ref} cannot be had. {trouble}. Pulling it failed too: {error}. Load it with `docker load`, "
                f"or give the name {ref} to an image that the engine holds"
            ) from error
        engine.tag(pulled.id, name)
        return _describe(name, pulled)


def _bootstrap(engine: Engine, ref: str, network: NetworkSettings, say: Say) -> Image:
    """Make a Debian base from packages and import it into the engine.

    Raises IngredientError when this machine cannot: no mmdebstrap, no Debian sources, or a failed download.
    """
    suite = BOOTSTRAPPED[ref]
    sources = network.debian_sources(suite)
    if not sources:
        raise IngredientError(f"{ref} cannot be made here: apt on this machine has no Debian sources")
    program = _mmdebstrap(say)
    say(f"making {ref} from Debian's packages")
    with tempfile.TemporaryDirectory(prefix="assay-base.") as scratch:
        archive = Path(scratch, "base.tar")
        make(program, suite, sources, archive, network)
        say(f"importing {archive.stat().st_size / 1e6:.0f} MB as {reference(ref)}")
        with archive.open("rb") as stream:
            return engine.import_tar(stream, reference(ref), [*_CONFIG, f"LABEL {_RECIPE_LABEL}={recipe()}"])


def make(program: str, suite: str, sources: str, archive: Path, network: NetworkSettings) -> None:
    """Write the root file system of a Debian suite as a tar archive: the same bytes for the same packages.

    program: mmdebstrap's path. sources: one-line apt entries.
    Raises IngredientError with the last lines that mmdebstrap printed when it fails.
    """
    listing = archive.with_suffix(".list")
    listing.write_text(sources, encoding="utf-8")
    command = [program, "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command += [f"--aptopt={option}" for option in _apt_options(network)]
    # Without this dpkg syncs each file: on a busy disk that is most of the time.
    command += ["--dpkgopt=force-unsafe-io", f"--customize-hook={_CLEAN}", suite, str(archive), str(listing)]
    environment = {**os.environ, **network.build_args, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        last = network.masked("\n".join(answer.stderr.strip().splitlines()[-5:]))
        raise IngredientError(f"mmdebstrap could not make Debian {suite}: {last}")


def _mmdebstrap(say: Say) -> str:
    """Return mmdebstrap's path, after installing it where that is possible.

    Raises IngredientError with the command to run where it is not.
    """
    if found := shutil.which("mmdebstrap"):
        return found
    command = ["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap"]
    advice = f"run `sudo {shlex.join(command)}`"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise IngredientError(f"mmdebstrap is missing; {advice}")
    say("installing mmdebstrap")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update"], command):
        answer = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
    found = shutil.which("mmdebstrap")
    if found is None:
        last = without_passwords("\n".join(answer.stderr.strip().splitlines()[-3:]))
        raise IngredientError(f"mmdebstrap is missing and could not be installed: {last}; {advice}")
    return found


def _apt_options(network: NetworkSettings) -> list[str]:
    """Return the network's settings as apt options for the bootstrap, which apt of this machine carries out."""
    options = [f'Acquire::{scheme}::Proxy "{url}"' for scheme, url in network.apt_proxies.items()]
    if network.ca_bundle:
        options.append(f'Acquire::https::CAInfo "{network.ca_bundle}"')
    return options


def _held_or_pulled(engine: Engine, ref: str, say: Say) -> BaseImage:
    """Return an image that the engine has, or pull it."""
    image = engine.find_image(ref)
    if image is None:
        say(f"pulling {ref}")
        try:
            image = engine.pull(ref)
        except IngredientError as error:
            raise IngredientError(
                f"the base {ref} is not in the engine. {error}. Load it with `docker load`, give that name to an image "
                "that the engine holds, or correct the row's `base`"
            ) from error
    return _describe(ref, image)


def _describe(ref: str, image: Image) -> BaseImage:
    """Return what a certificate says of a base."""
    digest = image.digests[0].rpartition("@")[2] if image.digests else image.id
    return BaseImage(ref=ref, id=image.id, digest=digest, layers=image.layers)
