"""What is said of an image's content: inventory, SBOM, provenance and tags, from a small file system."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import publish_samples as samples
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from assay import inventory, provenance, sbom, tags
from assay.certificate.statement import subject
from assay.errors import IngredientError, Refused
from assay.inventory import DebianPackage, Inventory
from assay.matrix.row import Requirements, Row

IMAGE = "sha256:" + "1" * 64


def found(**changes: str) -> Inventory:
    return inventory.read(samples.tar(samples.file_system(**changes)))


def bill(given: Inventory) -> dict[str, Any]:
    evidence = samples.evidence(samples.row(), IMAGE)
    data = sbom.make(
        given,
        name="cu121",
        image_id=IMAGE,
        ingredients=evidence.ingredients,
        made=evidence.finished,
        assay_version="0.1.0",
    )
    raw: dict[str, Any] = json.loads(data)
    return raw


def test_the_inventory_lists_what_the_installers_wrote_down() -> None:
    given = found()
    assert given.debian == (
        DebianPackage(name="bash", version="5.2.15-2+b8", architecture="amd64"),
        DebianPackage(name="libc6", version="2.36-9+deb12u10", architecture="amd64"),
    )
    assert [(one.name, one.version, one.python) for one in given.python] == [
        ("flash-attn", "2.8.3", "3.11"),
        ("numpy", "1.26.4", "3.11"),
        ("torch", "2.4.0+cu121", "3.11"),
    ]
    (toolkit,) = given.toolkits
    assert toolkit.folder == "/usr/local/cuda-12.1"
    assert toolkit.components["cuda_nvcc"] == "12.1.105"
    assert given.os["ID"] == "debian"


def test_the_inventory_reads_a_stream_in_pieces_of_any_size() -> None:
    data = samples.tar(samples.file_system()).getvalue()

    def pieces(size: int) -> Iterator[bytes]:
        yield from (data[start : start + size] for start in range(0, len(data), size))

    for size in (1, 511, 4096, len(data)):
        stream: Any = inventory._Stream(pieces(size))
        assert inventory.read(stream) == found()


def test_two_copies_of_a_package_are_not_guessed_between() -> None:
    files = samples.file_system()
    files["usr/lib/python3/dist-packages/torch-2.3.0.dist-info/METADATA"] = "Name: torch\nVersion: 2.3.0\n\n"
    with pytest.raises(IngredientError, match="2 copies of torch"):
        tags.full_tag(inventory.read(samples.tar(files)), "exp0.1")


def test_a_broken_version_file_is_named() -> None:
    files = samples.file_system() | {"usr/local/cuda-12.1/version.json": "{"}
    with pytest.raises(IngredientError, match=r"/usr/local/cuda-12\.1/version\.json"):
        inventory.read(samples.tar(files))


def test_an_empty_file_system_has_an_empty_inventory() -> None:
    assert inventory.read(io.BytesIO(samples.tar({}).getvalue())) == Inventory(os={}, debian=(), python=(), toolkits=())


def test_the_bill_is_valid_and_complete() -> None:
    raw = bill(found())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(raw)) is None
    assert raw["metadata"]["component"]["version"] == IMAGE
    components = {one["name"]: one for one in raw["components"]}
    assert set(components) == {
        *("debian", "bash", "libc6", "torch", "numpy", "flash-attn", "cuda", "cuda-cudart", "cuda-nvcc")
    }
    assert components["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"
    assert components["torch"]["purl"] == "pkg:pypi/torch@2.4.0%2Bcu121"
    assert len(components["numpy"]["hashes"][0]["content"]) == 64
    assert components["cuda-cudart"]["version"] == "12.1.105"


def test_the_bill_names_the_wheel_of_flash_attn_and_its_compiler() -> None:
    (flash,) = [one for one in bill(found())["components"] if one["name"] == "flash-attn"]
    properties = {one["name"]: one["value"] for one in flash["properties"]}
    assert flash["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert properties["assay:hash-of"] == "wheel"
    assert properties["assay:compiler"] == "nvcc 12.4.131, g++ 12.2.0"
    assert properties["assay:wheel-version"] == "2.8.3+sm80"


def test_the_same_image_gives_the_same_bill() -> None:
    assert bill(found()) == bill(found())


def test_provenance_names_everything_that_went_in() -> None:
    evidence = samples.evidence(samples.row(), IMAGE)
    raw = provenance.make(evidence, [subject("localhost/newbie", IMAGE)], environment={})
    assert raw["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = raw["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["row"]["id"] == "cu121"
    digests = {one["name"]: one["digest"]["sha256"] for one in definition["resolvedDependencies"]}
    assert digests == {
        "Dockerfile": "a" * 64,
        "base": "b" * 64,
        "flash-attn": "c" * 64,
        "lock torch-py3.11.txt": "d" * 64,
    }
    assert raw["predicate"]["runDetails"]["builder"]["id"] == provenance.LOCAL_BUILDER
    assert raw["predicate"]["runDetails"]["builder"]["version"]["engine"] == "Docker Engine 20.10.24"


def test_every_dependency_has_what_slsa_asks_for() -> None:
    """A resource descriptor needs one of uri, digest and content."""
    bare = replace(
        samples.evidence(samples.row(), IMAGE),
        base_digest=None,
        ingredients=tuple(replace(one, sha256=None) for one in samples.evidence(samples.row(), IMAGE).ingredients),
    )
    raw = provenance.make(bare, [subject("localhost/newbie", IMAGE)], environment={})
    for one in raw["predicate"]["buildDefinition"]["resolvedDependencies"]:
        assert "uri" in one or "digest" in one, one


def test_on_github_the_builder_is_the_workflow() -> None:
    environment = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "me/assay",
        "GITHUB_WORKFLOW_REF": "me/assay/.github/workflows/build-matrix.yml@refs/heads/main",
        "GITHUB_RUN_ID": "7",
        "GITHUB_RUN_ATTEMPT": "2",
    }
    raw = provenance.make(samples.evidence(samples.row(), IMAGE), [subject("x", IMAGE)], environment)
    run = raw["predicate"]["runDetails"]
    assert run["builder"]["id"].endswith("/.github/workflows/build-matrix.yml@refs/heads/main")
    assert run["metadata"]["invocationId"] == "https://github.com/me/assay/actions/runs/7/attempts/2"


def test_the_full_tag_says_what_is_inside() -> None:
    assert tags.full_tag(found(), "exp0.1") == "exp0.1-cu12.1.105-torch2.4.0-fa2.8.3-py311"
    assert tags.full_tag(found(torch="2.5.1+cu124", cudart="12.4.127"), "exp0.1") == (
        "exp0.1-cu12.4.127-torch2.5.1-fa2.8.3-py311"
    )


def test_what_a_row_adds_is_named_by_its_id() -> None:
    plain = Row(id="mine", expect="certify")
    assert tags.prefix_of(plain, "exp0.1") == "exp0.1"
    packages = Requirements(path="r.txt", sha256="0" * 64, packages=())
    for row in (replace(plain, dockerfile="own.dockerfile"), replace(plain, requirements=packages)):
        tag = tags.full_tag(found(), tags.prefix_of(row, "exp0.1"))
        assert tag == "exp0.1-mine-cu12.1.105-torch2.4.0-fa2.8.3-py311"
        assert tags.is_full(tag)


def test_another_system_than_the_default_is_part_of_the_tag() -> None:
    given = replace(found(), os={"ID": "ubuntu", "VERSION_ID": "22.04"})
    assert tags.full_tag(given, "exp0.1") == "exp0.1-cu12.1.105-torch2.4.0-fa2.8.3-py311-ubuntu22.04"


def test_without_a_toolkit_the_runtime_that_torch_brings_counts() -> None:
    runtime = replace(found().python[0], name="nvidia-cuda-runtime-cu12", version="12.1.105")
    given = replace(found(), toolkits=(), python=(*found().python, runtime))
    assert tags.full_tag(given, "exp0.1").startswith("exp0.1-cu12.1.105-")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (replace(found(), python=()), "no installed torch"),
        (replace(found(), toolkits=()), "no CUDA runtime"),
        (
            replace(found(), toolkits=(*found().toolkits, *found(cudart="12.0.146").toolkits)),
            "12.0.146 and 12.1.105",
        ),
    ],
)
def test_an_image_that_cannot_be_named_is_refused(given: Inventory, words: str) -> None:
    with pytest.raises(Refused, match=words):
        tags.full_tag(given, "exp0.1")


@pytest.mark.parametrize(
    ("tag", "full"),
    [
        ("exp0.1-cu12.1.105-torch2.4.0-fa2.8.3-py311", True),
        ("exp0.1-cu12.1.105-torch2.4.0-py311", True),
        ("exp0.1-cu12.1.105-torch2.4.0-fa2.8.3-py311-ubuntu22.04", True),
        ("exp0.1-cu121", False),
        ("latest", False),
    ],
)
def test_full_tags_are_told_from_moving_ones(tag: str, full: bool) -> None:
    assert tags.is_full(tag) is full
