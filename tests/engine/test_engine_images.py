"""Images on a real engine: carried in and out, named, measured."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from assay.engine import Engine
from assay.errors import EngineError, IngredientError

pytestmark = pytest.mark.engine


def test_a_file_and_a_folder_come_out_of_an_image_without_a_command(engine: Engine, name: str, tmp_path: Path) -> None:
    (tmp_path / "made" / "sub").mkdir(parents=True)
    (tmp_path / "made" / "one").write_text("1", encoding="utf-8")
    (tmp_path / "made" / "sub" / "two").write_text("2", encoding="utf-8")
    (tmp_path / "made" / "tool").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "made" / "tool").chmod(0o755)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY made /made\n", encoding="utf-8")
    engine.build(tmp_path, tag=name, log=tmp_path / "log")

    engine.copy_out(name, "/made/one", tmp_path / "out" / "renamed")
    engine.copy_out(name, "/made", tmp_path / "folder")
    assert (tmp_path / "out" / "renamed").read_text(encoding="utf-8") == "1"
    assert (tmp_path / "folder" / "sub" / "two").read_text(encoding="utf-8") == "2"
    assert (tmp_path / "folder" / "tool").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["one", "sub", "tool"]
    with pytest.raises(IngredientError, match="/absent is not in image"):
        engine.copy_out(name, "/absent", tmp_path / "x")


def test_an_image_is_found_by_name_and_id_and_named_again(engine: Engine, base: str, name: str) -> None:
    image = engine.inspect(base)
    assert engine.image_id(image.id) == image.id == engine.image_id(base)
    assert engine.image_id(name) is None
    with pytest.raises(IngredientError, match=name):
        engine.inspect(name)
    engine.tag(base, name)
    assert engine.inspect(name).id == image.id
    assert name in engine.inspect(image.id).tags


def test_shared_layers_count_once(engine: Engine, base: str, tmp_path: Path) -> None:
    images = []
    for number in range(2):
        (tmp_path / "Dockerfile").write_text(
            f"FROM {base}\nENV A=1\nWORKDIR /work\nRUN dd if=/dev/zero of=/shared bs=1000 count=500\nLABEL b=c\n"
            f'RUN dd if=/dev/zero of=/own bs=1000 count={100 + number}\nRUN true\nCMD ["true"]\n',
            encoding="utf-8",
        )
        images.append(engine.build(tmp_path, log=tmp_path / "log"))
    below, *sizes = (engine.inspect(image).size for image in (base, *images))
    stored = engine.storage(images)
    assert stored["total"] + stored["shared"] == sum(sizes)
    # At most so much more, where the engine counts blocks and folders (containerd's image store), and no byte less.
    more = 40_000
    assert 0 <= stored["shared"] - (below + 500_000) <= more
    assert 0 <= sizes[0] - (below + 600_000) <= more
    assert 0 <= sizes[1] - sizes[0] <= 4096
    assert engine.storage([images[0], images[0]]) == {"total": sizes[0], "shared": 0}


def test_a_size_is_that_of_the_unpacked_layers(engine: Engine, base: str, tmp_path: Path) -> None:
    """Zeros pack well: an engine that tells the packed size would tell next to nothing."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {base}\nRUN dd if=/dev/zero of=/zeros bs=1000000 count=9\n", encoding="utf-8"
    )
    image = engine.build(tmp_path, log=tmp_path / "log")
    assert 9_000_000 <= engine.inspect(image).size - engine.inspect(base).size <= 9_100_000


def test_save_writes_an_archive_that_holds_the_image(engine: Engine, base: str, tmp_path: Path) -> None:
    engine.save([base], tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as archive:
        assert "manifest.json" in archive.getnames()
    with pytest.raises(EngineError, match="assay-test/none"):
        engine.save(["assay-test/none:1"], tmp_path / "other.tar")
    assert not (tmp_path / "other.tar").exists()


def test_an_import_that_is_no_tar_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(EngineError, match="could not import"):
        engine.import_tar(io.BytesIO(b"no tar at all" * 100), name)


def test_a_pull_without_a_registry_says_what_could_not_be_had(engine: Engine) -> None:
    with pytest.raises(IngredientError, match=r"127\.0\.0\.1:1/none:1 could not be pulled"):
        engine.pull("127.0.0.1:1/none:1")


def test_copy_link_builds_where_the_engine_says_that_it_can(engine: Engine, base: str, tmp_path: Path) -> None:
    if not engine.supports_copy_link:
        pytest.skip(f"Engine {engine.version} does not know COPY --link")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {base} AS made\nRUN echo hello >/made\nFROM {base}\nCOPY --link --from=made /made /linked\n",
        encoding="utf-8",
    )
    image = engine.build(tmp_path, log=tmp_path / "log")
    assert engine.run(image, ["cat", "/linked"], timeout=30).stdout_tail == ("hello",)
