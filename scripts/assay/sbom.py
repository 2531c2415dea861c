"""The software bill of materials of an image, in CycloneDX 1.6 JSON: what its installers wrote down, and no more."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from assay.certificate import Ingredient
from assay.certificate.evidence import sha256_hex
from assay.errors import CertificateError
from assay.inventory import DebianPackage, Inventory, PythonPackage, Toolkit


def make(
    inventory: Inventory,
    *,
    name: str,
    image_id: str,
    ingredients: Iterable[Ingredient],
    made: datetime,
    assay_version: str,
) -> bytes:
    """Return the bill as JSON, valid by the schema; the same image gives the same bytes.

    name: the row's id. made: the time to write into it, that of the certificate.
    ingredients: what was recorded of files before they were installed: they lend their hash, source and compiler.
    Raises CertificateError when the result is not valid CycloneDX.
    """
    image = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=image_id,
        bom_ref="image",
        hashes=[_sha256(sha256_hex(image_id))],
        properties=[Property(name="assay:hash-of", value="image configuration")],
    )
    known: dict[str, Ingredient] = {canonicalize_name(one.name): one for one in ingredients}
    parts = [
        *(_system(inventory)),
        *(_debian(package, inventory) for package in inventory.debian),
        *(_python(package, known.get(package.name)) for package in inventory.python),
        *(component for toolkit in inventory.toolkits for component in _toolkit(toolkit)),
    ]
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:assay:sbom:{image_id}"),
        components=parts,
        metadata=BomMetaData(
            component=image,
            timestamp=made,
            tools=ToolRepository(
                components=[Component(type=ComponentType.APPLICATION, name="assay", version=assay_version)]
            ),
        ),
        dependencies=[
            Dependency(ref=image.bom_ref, dependencies=[Dependency(ref=part.bom_ref) for part in parts]),
            *(Dependency(ref=part.bom_ref) for part in parts),
        ],
    )
    # Its import takes seconds (it compiles the grammar of every string format), which only this needs.
    from cyclonedx.validation.json import JsonStrictValidator

    text = JsonV1Dot6(bom).output_as_string()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise CertificateError(f"the SBOM of {name} is not valid CycloneDX 1.6: {problem}")
    return text.encode()


def _system(inventory: Inventory) -> Iterator[Component]:
    if inventory.os.get("ID"):
        yield Component(
            type=ComponentType.OPERATING_SYSTEM,
            name=inventory.os["ID"],
            version=inventory.os.get("VERSION_ID"),
            bom_ref="os",
        )


def _debian(package: DebianPackage, inventory: Inventory) -> Component:
    distribution = inventory.os.get("ID", "debian")
    purl = PackageURL(
        "deb",
        distribution,
        package.name,
        package.version,
        {"arch": package.architecture, "distro": f"{distribution}-{inventory.os.get('VERSION_ID', '')}".rstrip("-")},
    )
    return Component(
        type=ComponentType.LIBRARY, name=package.name, version=package.version, purl=purl, bom_ref=purl.to_string()
    )


def _python(package: PythonPackage, ingredient: Ingredient | None) -> Component:
    """Return an installed package; its hash is the wheel's where that was recorded, else that of its RECORD."""
    purl = PackageURL("pypi", None, package.name, package.version)
    properties = {"assay:folder": package.folder}
    hashes = []
    if package.record_sha256:
        hashes = [_sha256(package.record_sha256)]
        properties["assay:hash-of"] = "RECORD, the installed files' list with their hashes"
        properties["assay:record-sha256"] = package.record_sha256
    if ingredient and ingredient.version.partition("+")[0] == package.version.partition("+")[0]:
        if ingredient.sha256:
            hashes = [_sha256(sha256_hex(ingredient.sha256))]
            properties["assay:hash-of"] = "wheel"
        properties["assay:wheel-version"] = ingredient.version
        properties["assay:source"] = ingredient.source
        properties["assay:compiler"] = ingredient.compiler or "unknown"
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=f"{purl.to_string()}#{package.folder}",
        hashes=hashes,
        properties=[Property(name=name, value=value) for name, value in properties.items()],
    )


def _toolkit(toolkit: Toolkit) -> Iterator[Component]:
    for name, version in sorted(toolkit.components.items()):
        yield Component(
            type=ComponentType.LIBRARY,
            group="nvidia",
            name=name.replace("_", "-"),
            version=version,
            purl=PackageURL("generic", "nvidia", name.replace("_", "-"), version),
            bom_ref=f"{toolkit.folder}/{name}",
            properties=[Property(name="assay:folder", value=toolkit.folder)],
        )


def _sha256(hexdigest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=hexdigest)
