"""Which base a row gets: the user's own, one made before, one made now, or a pulled one.

The engine here is a dictionary: tagging `debian:bookworm` in a real one would change what everybody else builds on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from assay import base
from assay.engine.events import BuildEvent
from assay.engine.images import Image
from assay.errors import IngredientError
from assay.network import NetworkSettings

NOWHERE = NetworkSettings()  # no apt sources: nothing can be made


def image(identifier: str, labels: dict[str, str] | None = None, digests: tuple[str, ...] = ()) -> Image:
    return Image(id=identifier, tags=(), digests=digests, size=1, layers=(), labels=labels or {}, environment={})


@dataclass
class InMemoryEngine:
    """As much of an engine as finding a base needs: names, and a registry with what can be pulled."""

    names: dict[str, Image] = field(default_factory=dict)
    registry: dict[str, Image] = field(default_factory=dict)
    supports_copy_link: bool = False

    def find_image(self, reference: str) -> Image | None:
        return self.names.get(reference)

    def tag(self, identifier: str, reference: str) -> None:
        self.names[reference] = next(held for held in self.names.values() if held.id == identifier)

    def pull(self, reference: str) -> Image:
        if reference not in self.registry:
            raise IngredientError(f"image {reference} could not be pulled: no route")
        self.names[reference] = self.registry[reference]
        return self.registry[reference]

    def import_tar(self, archive: IO[bytes], reference: str, changes: Sequence[str] = ()) -> Image:
        raise AssertionError("nothing should be imported here")


def ensure(engine: InMemoryEngine, ref: str = "debian:bookworm") -> tuple[base.BaseImage, str]:
    said: list[BuildEvent] = []
    found = base.ensure(engine, ref, NOWHERE, on_event=said.append)  # type: ignore[arg-type]
    return found, "\n".join(event.line or "" for event in said)


def test_no_name_of_ours_is_looked_for_in_a_registry_of_others() -> None:
    """`assay/debian` is short for an image in a public namespace `assay`; what `localhost` serves is this machine's."""
    for ref in base.BOOTSTRAPPED:
        assert base.reference(ref).partition("/")[0] == "localhost"
    assert base.reference("nvidia/cuda:12") == "nvidia/cuda:12"


def test_one_made_before_is_used() -> None:
    made = image("sha256:made", {"io.assay.base.recipe": base.recipe()})
    found, said = ensure(InMemoryEngine({"localhost/assay/debian:bookworm": made}))
    assert found == base.BaseImage(ref="localhost/assay/debian:bookworm", id="sha256:made", digest="sha256:made")
    assert said == ""


def test_the_users_own_goes_before_one_made_by_us() -> None:
    made = image("sha256:made", {"io.assay.base.recipe": base.recipe()})
    own = image("sha256:own", digests=("debian@sha256:registry",))
    engine = InMemoryEngine({"localhost/assay/debian:bookworm": made, "debian:bookworm": own})
    found, said = ensure(engine)
    assert (found.id, found.digest) == ("sha256:own", "sha256:registry")
    assert engine.names["localhost/assay/debian:bookworm"] is own
    assert engine.names["debian:bookworm"] is own
    assert "the engine holds debian:bookworm" in said
    assert ensure(engine)[1] == "", "said once"


def test_one_made_by_an_older_recipe_is_not_used() -> None:
    engine = InMemoryEngine({"localhost/assay/debian:bookworm": image("sha256:old", {"io.assay.base.recipe": "other"})})
    engine.registry["debian:bookworm"] = image("sha256:pulled")
    assert ensure(engine)[0].id == "sha256:pulled"


def test_where_none_can_be_made_it_is_pulled() -> None:
    engine = InMemoryEngine(registry={"debian:bookworm": image("sha256:pulled")})
    found, said = ensure(engine)
    assert found.ref == "localhost/assay/debian:bookworm"
    assert engine.names["localhost/assay/debian:bookworm"].id == "sha256:pulled"
    assert "no Debian sources; pulling debian:bookworm instead" in said


def test_where_nothing_works_both_reasons_are_told() -> None:
    with pytest.raises(IngredientError, match=r"no Debian sources\. Pulling it failed too: .*no route\. Load it"):
        ensure(InMemoryEngine())


def test_any_other_image_is_taken_as_it_is_or_pulled() -> None:
    held = image("sha256:cuda", digests=("nvidia/cuda@sha256:abc",))
    found, _ = ensure(
        InMemoryEngine({"nvidia/cuda:12.1.1-devel-ubuntu22.04": held}), "nvidia/cuda:12.1.1-devel-ubuntu22.04"
    )
    assert found == base.BaseImage(ref="nvidia/cuda:12.1.1-devel-ubuntu22.04", id="sha256:cuda", digest="sha256:abc")
    with pytest.raises(IngredientError, match=r"no-such:1 is not in the engine.*docker load"):
        ensure(InMemoryEngine(), "no-such:1")


def test_linked_layers_are_made_on_the_default_base() -> None:
    engine = InMemoryEngine({"other:1": image("sha256:other")}, supports_copy_link=True)
    engine.registry["debian:bookworm"] = image("sha256:pulled")
    assert ensure(engine, "other:1")[0].id == "sha256:other"
    assert engine.names[base.reference(base.DEFAULT)].id == "sha256:pulled"


def test_a_base_that_brings_torch_needs_no_other_base() -> None:
    """A GPU host without a registry has none."""
    engine = InMemoryEngine({"gpu-host:base": image("sha256:host")}, supports_copy_link=True)
    found = base.ensure(
        engine,  # type: ignore[arg-type]
        "gpu-host:base",
        NOWHERE,
        on_event=lambda event: None,
        installs_torch=False,
    )
    assert found.id == "sha256:host"
    assert set(engine.names) == {"gpu-host:base"}


def test_without_mmdebstrap_and_root_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(IngredientError, match="sudo apt-get install -y --no-install-recommends mmdebstrap"):
        base._mmdebstrap(lambda line: None)


def test_what_is_held_is_what_would_be_used_without_making_any() -> None:
    made = image("sha256:made", {"io.assay.base.recipe": base.recipe()})
    older = image("sha256:older", {"io.assay.base.recipe": "older"})
    real, other = image("sha256:real"), image("sha256:other", digests=("nvidia/cuda@sha256:manifest",))
    for names, ref, digest in (
        ({}, "debian:bookworm", None),
        ({"localhost/assay/debian:bookworm": older}, "debian:bookworm", None),
        ({"localhost/assay/debian:bookworm": made}, "debian:bookworm", "sha256:made"),
        ({"localhost/assay/debian:bookworm": made, "debian:bookworm": real}, "debian:bookworm", "sha256:real"),
        ({"debian:bookworm": real}, "nvidia/cuda:12", None),
        ({"nvidia/cuda:12": other}, "nvidia/cuda:12", "sha256:manifest"),
    ):
        engine = InMemoryEngine(names)
        held = base.held(engine, ref)  # type: ignore[arg-type]
        assert (held.digest if held else None) == digest
        assert held is None or held == ensure(engine, ref)[0]


def test_a_bootstrap_that_fails_says_why_without_passwords(tmp_path: Path) -> None:
    program = tmp_path / "mmdebstrap"
    program.write_text('#!/bin/sh\necho "E: no route to $http_proxy for bob:s3cret" >&2; exit 1\n')
    program.chmod(0o755)
    network = NetworkSettings(proxies={"http_proxy": "http://bob:s3cret@proxy.invalid:3128"})
    with pytest.raises(IngredientError) as caught:
        base.make(str(program), "bookworm", "deb http://mirror.invalid/debian bookworm main\n", tmp_path / "x", network)
    assert "no route to http://****@proxy.invalid:3128 for ****" in str(caught.value)
