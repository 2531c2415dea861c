"""Composed Dockerfiles on a real engine: they build, and nothing of this machine's network is left in the image.

The rows here leave torch out, so that a test takes seconds; the default matrix builds the whole stack.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from assay import base, matrix
from assay.compose import compose, part_of_line
from assay.engine import Engine
from assay.errors import BuildFailed, IngredientError
from assay.matrix.row import FlashAttn, Row
from assay.network import NetworkSettings

pytestmark = pytest.mark.engine

CHECKOUT = Path(__file__).parents[2]

# The base brings Python; the smallest stack that still installs from the package index.
SMALL = Row(
    id="small",
    expect="certify",
    cuda="12.0.1",
    torch="base",
    runtime="none",
    flash_attn=FlashAttn(source="none"),
    env=(("GREETING", 'a "quoted" $value'),),
)


@pytest.fixture(scope="module")
def network() -> NetworkSettings:
    return NetworkSettings.from_host()


@pytest.fixture(scope="module")
def debian(engine: Engine, network: NetworkSettings) -> base.BaseImage:
    return base.ensure(engine, "debian:bookworm", network, on_event=lambda event: None)


@pytest.fixture(scope="module")
def small(
    engine: Engine, debian: base.BaseImage, network: NetworkSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The image of the small row."""
    with built(SMALL, engine, network, tmp_path_factory.mktemp("small")) as image:
        yield image


@contextmanager
def built(row: Row, engine: Engine, network: NetworkSettings, out: Path, **options: object) -> Iterator[str]:
    """Compose and build a row; the image's name goes again afterwards, its layers only when nothing else holds them."""
    composed = compose(row, out=out, network=network, wheel=None, **options)  # type: ignore[arg-type]
    tag = f"assay-test/compose-{row.id}-{secrets.token_hex(4)}:latest"
    image = engine.build(
        composed.folder,
        tag=tag,
        labels={},
        build_args=composed.build_args,
        network="host",
        cancel=None,
        on_event=lambda event: None,
        log=out / "build.log",
    )
    try:
        yield image
    finally:
        engine.client.images.remove(tag, force=True)


def layer_files(engine: Engine, image: str, tmp_path: Path, *, above: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file in the layers above the first `above` ones, as `docker save` has them."""
    archive = tmp_path / "image.tar"
    engine.save([image], archive)
    with tarfile.open(archive) as saved:
        manifest = json.load(saved.extractfile("manifest.json"))  # type: ignore[arg-type]
        for layer in manifest[0]["Layers"][above:]:
            with tarfile.open(fileobj=saved.extractfile(layer)) as files:
                for member in files:
                    content = files.extractfile(member) if member.isfile() else None
                    yield member.name, content.read() if content else b""
        yield "config", saved.extractfile(manifest[0]["Config"]).read()  # type: ignore[union-attr]


def traces(network: NetworkSettings) -> set[bytes]:
    """Byte strings that only this machine's settings hold: mirror hosts, index hosts, the settings' own file names."""
    hosts = {source.uri.split("/")[2] for source in network.apt_sources}
    addresses = [network.index or "", *network.extra_indexes, *network.proxies.values()]
    hosts |= {address.split("/")[2] for address in addresses if "//" in address}
    return {host.encode() for host in hosts} | {b"Written by assay for this machine"}


def test_the_base_is_made_once_and_says_so(engine: Engine, debian: base.BaseImage, network: NetworkSettings) -> None:
    said: list[object] = []
    assert base.ensure(engine, "debian:bookworm", network, on_event=said.append) == debian
    assert said == []
    assert debian.ref == "localhost/assay/debian:bookworm"


def test_the_base_knows_nothing_of_this_machine(
    engine: Engine, debian: base.BaseImage, network: NetworkSettings, tmp_path: Path
) -> None:
    names = set()
    bundle = network.ca_bundle.read_bytes() if network.ca_bundle else b"none"
    # Documentation and package descriptions name Debian's own hosts; configuration must not.
    for name, content in layer_files(engine, debian.ref, tmp_path):
        names.add(name.removeprefix("./"))
        if "/etc/" in f"/{name}" or "/var/lib/apt" in name:
            assert not any(trace in content for trace in traces(network)), name
        assert content != bundle, name
    assert "etc/debian_version" in names
    assert not names & {"etc/resolv.conf", "etc/hostname", "etc/apt/apt.conf.d/99mmdebstrap", "etc/apt/sources.list"}


def test_a_base_made_again_is_the_same(
    engine: Engine, debian: base.BaseImage, network: NetworkSettings, tmp_path: Path
) -> None:
    """Byte for byte, as long as the mirror holds the same packages."""
    program = shutil.which("mmdebstrap")
    image = engine.inspect(debian.ref)
    if not program or os.geteuid() != 0 or image.labels.get("io.assay.base.recipe") != base.recipe():
        pytest.skip("the engine's base was not made here")
    archive = tmp_path / "base.tar"
    base.make(program, "bookworm", network.debian_sources("bookworm"), archive, network)
    engine.copy_out(debian.ref, "/var/lib/dpkg/status", tmp_path / "status")
    with tarfile.open(archive) as made_now:
        status = made_now.extractfile("./var/lib/dpkg/status")
        assert status is not None
        if status.read() != (tmp_path / "status").read_bytes():
            pytest.skip("the mirror holds other packages than when the engine's base was made")
    made = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert image.layers == (f"sha256:{made}",)


def test_no_layer_holds_the_network_settings(
    engine: Engine, small: str, debian: base.BaseImage, network: NetworkSettings, tmp_path: Path
) -> None:
    base_layers = len(engine.inspect(debian.ref).layers)
    bundle = network.ca_bundle.read_bytes() if network.ca_bundle else b"none"
    seen = 0
    for name, content in layer_files(engine, small, tmp_path, above=base_layers):
        seen += 1
        assert not name.startswith("run/network/"), name
        assert "ca-certificates" not in name, name
        assert content != bundle, name
        assert not any(trace in content for trace in traces(network)), name
    assert seen > 1000, "the toolkit's files should be among them"


def test_the_toolkit_is_laid_out_as_everybody_expects(engine: Engine, small: str) -> None:
    command = (
        "set -e; pwd; cd /usr/local/cuda-12.0; test -e lib64/libcudart.so; test -e lib64/libnvJitLink.so.12; "
        "test -e include/cuda_runtime.h; test -e nvvm/lib64/libnvvm.so; test -e nvvm/libdevice/libdevice.10.bc; "
        'bin/ptxas --version | tail -1; readlink /usr/local/cuda; echo "$CUDA_HOME $GREETING"; '
        'test ! -e /run/tools/bin/uv; test ! -e /tmp/wheels; test -z "$(ls -A /root/.cache/uv 2>/dev/null)"'
    )
    lines: list[str] = []
    result = engine.run(small, ["sh", "-c", command], on_line=lines.append, timeout=60)
    assert result.exit_code == 0, lines
    assert lines[0] == "/opt/newbie"
    assert "cuda_12.0" in lines[1]
    assert lines[2:] == ["cuda-12.0", '/usr/local/cuda a "quoted" $value']


def test_the_image_stands_on_the_base_that_was_ensured(engine: Engine, small: str, debian: base.BaseImage) -> None:
    layers = engine.inspect(small).layers
    assert debian.layers
    assert layers[: len(debian.layers)] == debian.layers
    assert len(layers) > len(debian.layers)


def test_building_again_changes_no_layer(engine: Engine, small: str, network: NetworkSettings, tmp_path: Path) -> None:
    with built(SMALL, engine, network, tmp_path) as again:
        assert engine.inspect(again).layers == engine.inspect(small).layers


def test_the_classic_builder_gives_the_same_files(
    engine: Engine, debian: base.BaseImage, network: NetworkSettings, tmp_path: Path
) -> None:
    row = replace(SMALL, id="small-classic")
    composed = compose(row, out=tmp_path, network=network, wheel=None, frontend="classic")
    image, _ = engine.client.images.build(
        path=str(composed.folder),
        buildargs=dict(composed.build_args),
        network_mode="host",
        rm=True,
        forcerm=True,
        tag="assay-test/compose-classic:latest",
    )
    try:
        base_layers = len(engine.inspect(debian.ref).layers)
        names = set()
        for name, content in layer_files(engine, image.id, tmp_path, above=base_layers):
            names.add(name)
            assert not name.startswith("run/network"), name
            assert not any(trace in content for trace in traces(network)), name
        assert "usr/local/cuda-12.0/lib64/libcudart.so.12" in names
    finally:
        engine.client.images.remove(image.id, force=True)


def test_a_failing_step_is_named_by_its_part(
    engine: Engine, debian: base.BaseImage, network: NetworkSettings, tmp_path: Path
) -> None:
    composed = compose(SMALL, out=tmp_path, network=network, wheel=None)
    lock = composed.folder / "locks/toolkit.txt"
    lock.write_text(lock.read_text().replace("sha256:1", "sha256:2").replace("sha256:4", "sha256:5"))
    with pytest.raises(BuildFailed) as failure:
        engine.build(
            composed.folder,
            tag=None,
            labels={},
            build_args=composed.build_args,
            network="host",
            cancel=None,
            on_event=lambda event: None,
            log=tmp_path / "log",
        )
    assert failure.value.part == "toolkit"
    assert any("hash" in line.lower() for line in failure.value.log)
    dockerfile = composed.dockerfile.read_text()
    line = next(n for n, text in enumerate(dockerfile.splitlines(), 1) if "layout.py" in text)
    assert part_of_line(dockerfile, line) == "toolkit"


def test_a_base_that_nobody_has(engine: Engine, network: NetworkSettings) -> None:
    with pytest.raises(IngredientError, match="docker load"):
        base.ensure(engine, "assay-test/no-such-base:1", network, on_event=lambda event: None)


def test_the_nvidia_example_builds_on_a_stand_in(
    engine: Engine, debian: base.BaseImage, network: NetworkSettings, tmp_path: Path
) -> None:
    """An image of that name in the engine is used as it is. The stand-in is Debian, so its Python is Debian's."""
    rows = matrix.load(CHECKOUT / "examples/matrix.nvidia-cuda.toml").rows
    row = replace(rows[0], torch="base", runtime="none", flash_attn=FlashAttn(source="none"))
    if engine.find_image(row.base):
        pytest.skip(f"the engine holds the real {row.base}")
    engine.tag(debian.id, row.base)
    try:
        ensured = base.ensure(engine, row.base, network, on_event=lambda event: None)
        assert ensured.id == debian.id
        with built(row, engine, network, tmp_path) as image:
            assert engine.inspect(image).labels["io.assay.base"] == row.base
    finally:
        engine.client.images.remove(row.base)


def test_linked_layers_are_shared_by_rows_on_different_bases(
    engine: Engine, debian: base.BaseImage, network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's place is taken by one small package: how its layer is made and copied is the same."""
    if not engine.supports_copy_link:
        pytest.skip(f"Docker Engine {engine.version} does not know COPY --link")
    docker = tmp_path / "docker"
    shutil.copytree(CHECKOUT / "docker", docker)
    (docker / "locks/torch-2.4.0-cu121/torch-py3.11.txt").write_text((docker / "locks/flash-attn.txt").read_text())
    monkeypatch.setattr("assay.paths.docker_dir", lambda: docker)
    layers, ids = [], []
    with ExitStack() as stack:
        for name in ("one", "two"):
            other = tmp_path / name
            other.mkdir()
            (other / "Dockerfile").write_text(f"FROM {debian.ref}\nRUN echo {name} > /opt/{name}\n")
            tag = f"assay-test/base-{name}-{secrets.token_hex(4)}:latest"
            engine.build(
                other,
                tag=tag,
                labels={},
                network="host",
                cancel=None,
                on_event=lambda event: None,
                log=tmp_path / "log",
            )
            stack.callback(engine.client.images.remove, tag, force=True)
            row = Row(
                id=name, expect="certify", base=tag, runtime="none", toolkit="none", flash_attn=FlashAttn(source="none")
            )
            image = stack.enter_context(built(row, engine, network, tmp_path / "out", link=True))
            result = engine.run(image, ["python", "-c", "import einops; print(einops.__file__)"], timeout=60)
            assert result.stdout_tail[-1].startswith("/opt/venv/lib/python3.11/site-packages/einops")
            layers.append(engine.inspect(image).layers)
            ids.append(image)
    base_layers = len(engine.inspect(debian.ref).layers)
    assert all(found[:base_layers] == debian.layers for found in layers), "linked copies leave the base's layers first"
    own = [set(found[base_layers:]) for found in layers]
    assert ids[0] != ids[1]
    shared = own[0] & own[1]
    assert layers[0][base_layers + 2] in shared, "base, its own file, Python's environment, then torch"
