"""Locks, requirements and files against RECORD, on small environments with real metadata."""

from __future__ import annotations

import base64
import errno
import hashlib
import py_compile
from importlib import metadata
from pathlib import Path

import pytest
from checks_package import family

packages, files, distributions, framework = map(family, ("packages", "files", "distributions", "framework"))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty site folder that the checks take for the image's."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    for module in (files, distributions):
        monkeypatch.setattr(module, "site_folders", lambda: [folder])
    monkeypatch.setattr(distributions, "import_path", lambda: ["", str(folder), str(tmp_path / "pythonpath")])
    return folder


def install(site: Path, name: str, version: str, requires: tuple[str, ...] = (), **contents: str) -> None:
    """Install a distribution as an installer would: files, METADATA, RECORD."""
    info = f"{name}-{version}.dist-info"
    lines = [f"Requires-Dist: {requirement}\n" for requirement in requires]
    extras = {line.partition("extra == ")[2].strip("'\"\n") for line in lines if "extra ==" in line}
    told = "".join([f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", *lines])
    told += "".join(f"Provides-Extra: {extra}\n" for extra in sorted(extras))
    records = []
    for path, text in {
        f"{info}/METADATA": told,
        **{f"{name}/{key}.py": text for key, text in contents.items()},
    }.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        records.append(f"{path},sha256={digest},{len(text)}\n")
    (site / info / "RECORD").write_text("".join([*records, f"{info}/RECORD,,\n"]))


def expect(locked=None, wheel=None, own=None):
    return framework.Expect(
        {"torch": {"locked": locked or {}}, "requirements": own or {}, "flash_attn": {"wheel": wheel}}
    )


def test_every_kind_of_unmet_requirement_is_named(site):
    install(
        site, "app", "1.0", ("lib>=2", "gone", "other; python_version < '3'", "extra-only; extra == 'x'", "part[y]>=1")
    )
    install(site, "lib", "1.9")
    install(site, "part", "1.0", ("plug>=3; extra == 'y'",))
    install(site, "plug", "2.0")
    answer = packages.consistent(expect())
    assert answer.status == "failed"
    assert answer.evidence.splitlines() == [
        "app requires lib>=2, but lib is 1.9",
        "app requires gone, which is not installed",
        'part requires plug>=3; extra == "y", but plug is 2.0'.replace('"', "'"),
    ]


def test_the_lock_is_the_law(site):
    install(site, "torch", "2.4.0")
    install(site, "nvidia_nvjitlink_cu12", "12.0.140")
    install(site, "stray", "1.0")
    locked = {"torch": "2.4.0+cu121", "nvidia-nvjitlink-cu12": "12.1.105", "absent": "3.0"}
    answer = packages.consistent(expect(locked))
    assert answer.evidence.splitlines() == [
        "absent 3.0 is locked but not installed",
        "nvidia-nvjitlink-cu12 is 12.0.140, locked is 12.1.105",
        "stray 1.0 is installed but in no lock",
    ]


@pytest.mark.parametrize(
    ("installed", "locked", "same"),
    [
        ("2.0.0", "2.0", True),
        ("2024.07.04", "2024.7.4", True),
        ("1.0RC1", "1.0rc1", True),
        ("2.4.0+cpu", "2.4.0+cu121", True),
        ("2.0.1", "2.0", False),
        ("2.0.post1", "2.0", False),
        ("1!2.0", "2.0", False),
        ("0.1-debian", "0.1", False),
        ("nonsense", "nonsense", True),
    ],
)
def test_versions_are_compared_as_installers_compare_them(installed, locked, same):
    assert packages.same_version(installed, locked) is same


def test_what_lies_beside_the_site_folder_on_pythons_path_is_in_no_lock(site, tmp_path):
    install(site, "app", "1.0")
    beside = tmp_path / "pythonpath"
    beside.mkdir()
    assert packages.consistent(expect({"app": "1.0"})).status == "passed"
    (beside / "own.egg-info").mkdir()
    (beside / "own.egg-info/PKG-INFO").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    assert packages.consistent(expect({"app": "1.0"})).status == "passed"  # the application's own sources
    install(beside, "stray", "2.0")
    answer = packages.consistent(expect({"app": "1.0"}))
    assert answer.evidence == f"stray 2.0 is installed in {beside}, where no lock installs anything"
    # What a base image has there, nobody locked in the first place.
    assert packages.consistent(expect()).status == "passed"


def test_two_names_of_one_site_folder_are_one(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib64").symlink_to("lib")
    paths = {"purelib": str(tmp_path / "lib"), "platlib": str(tmp_path / "lib64")}
    monkeypatch.setattr(distributions.sysconfig, "get_path", paths.get)
    assert distributions.site_folders() == [tmp_path / "lib"]
    install(tmp_path / "lib", "app", "1.0")
    assert distributions.installed()[1] == []


def test_what_a_row_adds_to_a_base_is_the_law_and_the_rest_is_the_bases(site):
    install(site, "torch", "2.4.0")
    install(site, "added", "1.0")
    assert packages.consistent(expect(own={"added": "1.0"})).status == "passed"
    answer = packages.consistent(expect(own={"added": "1.1", "absent": "3.0"}))
    assert answer.evidence.splitlines() == [
        "absent 3.0 is locked but not installed",
        "added is 1.0, locked is 1.1",
    ]


def test_a_consistent_environment_passes(site):
    install(site, "app", "1.0", ("lib>=1",))
    install(site, "lib", "1.9")
    assert packages.consistent(expect({"app": "1.0", "lib": "1.9"})).status == "passed"


def test_two_versions_of_one_package_are_a_problem(site):
    install(site, "lib", "1.0")
    install(site, "lib", "1.1")
    assert "lib is installed twice" in packages.consistent(expect()).evidence


def test_untouched_files_pass(site):
    install(site, "lib", "1.0", one="x = 1\n")
    py_compile.compile(str(site / "lib/one.py"))
    answer = files.unmodified(expect())
    assert (answer.status, answer.evidence) == ("passed", "")
    assert answer.data["files"] == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda site: (site / "lib/one.py").write_text("x = 2\n"), "lib/one.py is not the file that lib 1.0 brought"),
        (lambda site: (site / "lib/one.py").unlink(), "lib/one.py is missing; lib 1.0 brought it"),
        (lambda site: (site / "lib/two.py").write_text(""), "lib/two.py is in no wheel's RECORD"),
        (lambda site: (site / "libevil.so.1").write_text(""), "libevil.so.1 is in no wheel's RECORD"),
        (lambda site: (site / "sitecustomize.py").write_text(""), "sitecustomize.py is in no wheel's RECORD"),
        (lambda site: (site / "evil.pth").write_text(""), "evil.pth is in no wheel's RECORD"),
        (lambda site: (site / "lib/three.pyc").write_bytes(b""), "lib/three.pyc is bytecode without a source"),
        (lambda site: (site / "lib-1.0.dist-info/RECORD").unlink(), "lib 1.0 has no RECORD"),
    ],
)
def test_every_kind_of_change_is_named(site, change, told):
    install(site, "lib", "1.0", one="x = 1\n")
    change(site)
    answer = files.unmodified(expect())
    assert answer.status == "failed"
    assert told in answer.evidence


def test_a_link_to_code_elsewhere_is_named_and_one_to_data_is_not(site, tmp_path):
    install(site, "lib", "1.0", one="x = 1\n")
    (site / "lib/again").symlink_to(site / "lib")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/weights.bin").write_bytes(b"x")
    (site / "lib/data").symlink_to(tmp_path / "data")
    assert files.unmodified(expect()).status == "passed"
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/deep/other.py").write_text("")
    (site / "other").symlink_to(tmp_path / "src")
    answer = files.unmodified(expect())
    assert answer.status == "failed"
    assert answer.evidence == (
        f"{site}/other is a link to {tmp_path}/src, and {tmp_path}/src/deep/other.py is in no wheel's RECORD"
    )


def test_a_link_behind_a_link_is_followed_and_one_in_a_circle_ends(site, tmp_path):
    install(site, "lib", "1.0", one="x = 1\n")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "first/again").symlink_to(tmp_path / "first")
    (tmp_path / "first/back").symlink_to(site)
    (tmp_path / "first/on").symlink_to(tmp_path / "second")
    (site / "other").symlink_to(tmp_path / "first")
    assert files.unmodified(expect()).status == "passed"
    (tmp_path / "second/code.py").write_text("")
    answer = files.unmodified(expect())
    assert answer.status == "failed"
    assert answer.evidence == (
        f"{site}/other is a link to {tmp_path}/first, and {tmp_path}/second/code.py is in no wheel's RECORD"
    )


def rewrite_record(site: Path, digest: str) -> None:
    """Give lib/one.py another hash in the RECORD of lib 1.0, and the RECORD an empty line."""
    record = site / "lib-1.0.dist-info/RECORD"
    lines = [
        f"lib/one.py,{digest},6" if line.startswith("lib/one.py,") else line for line in record.read_text().splitlines()
    ]
    record.write_text("\n\n".join(lines) + "\n\n")


@pytest.mark.parametrize(("name", "status"), [("top_level.txt", "passed"), ("entry_points.txt", "failed")])
def test_of_a_packages_metadata_only_what_something_goes_by_is_compared(site, name, status):
    """decord 0.6.0 came with a top_level.txt that its own RECORD contradicts."""
    install(site, "lib", "1.0", one="x = 1\n")
    (site / "lib-1.0.dist-info" / name).write_text("lib\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"other\n").digest()).rstrip(b"=").decode()
    with (site / "lib-1.0.dist-info/RECORD").open("a") as record:
        record.write(f"lib-1.0.dist-info/{name},sha256={digest},6\n")
    assert files.unmodified(expect()).status == status


def test_a_stronger_hash_than_sha256_counts_as_well(site):
    install(site, "lib", "1.0", one="x = 1\n")
    strong = base64.urlsafe_b64encode(hashlib.sha512(b"x = 1\n").digest()).rstrip(b"=").decode()
    rewrite_record(site, f"sha512={strong}")
    assert files.unmodified(expect()).status == "passed"
    (site / "lib/one.py").write_text("x = 2\n")
    answer = files.unmodified(expect())
    assert answer.status == "failed"
    assert "lib/one.py is not the file that lib 1.0 brought: sha512 " in answer.evidence


@pytest.mark.parametrize("digest", ["", "md5=CY9rzUYh03PK3k6DJie09g", "sha256=x", "sha256=\N{SNOWMAN}"])
def test_code_whose_record_names_no_hash_to_rely_on_is_named(site, digest):
    install(site, "lib", "1.0", one="x = 1\n")
    rewrite_record(site, digest)
    assert "lib/one.py has no hash in the RECORD of lib 1.0" in files.unmodified(expect()).evidence


@pytest.mark.parametrize("last", ["one", "two"])
def test_a_package_that_lies_over_another_is_named_whichever_record_is_read_last(site, last):
    """As opencv-python and opencv-python-headless do, which both bring cv2."""
    brought = {"one": "x = 1\n", "two": "x = 2\n"}
    for name, text in brought.items():
        install(site, name, "1.0", code=text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        with (site / f"{name}-1.0.dist-info/RECORD").open("a") as record:
            record.write(f"shared.py,sha256={digest},6\nLICENSE,sha256={digest},6\n")
    for name in ("shared.py", "LICENSE"):
        (site / name).write_text(brought[last])
    answer = files.unmodified(expect())
    other = "two" if last == "one" else "one"
    assert answer.status == "failed"
    assert [line.partition(": ")[0] for line in answer.evidence.splitlines()] == [
        f"{site}/shared.py is not the file that {other} 1.0 brought"
    ]


def test_a_file_that_the_images_user_may_not_read_is_named(tmp_path, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(files.Path, "open", refuse)
    assert files.hashed(str(tmp_path / "one.py")).problem == "cannot be read: Permission denied"


def test_a_disk_that_cannot_be_read_is_no_fault_of_the_image(tmp_path, monkeypatch):
    def fail(self, *arguments, **options):
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(files.Path, "open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        files.hashed(str(tmp_path / "one.py"))


@pytest.mark.parametrize(
    "mode", [py_compile.PycInvalidationMode.TIMESTAMP, py_compile.PycInvalidationMode.UNCHECKED_HASH]
)
def test_bytecode_of_another_source_is_named(site, mode):
    install(site, "lib", "1.0", one="x = 1\n")
    other = site.parent / "other.py"
    other.write_text("print('something longer')\n")
    cached = site / "lib/__pycache__" / Path(metadata.__file__).with_name("one.cpython-311.pyc").name
    py_compile.compile(str(other), cfile=str(cached), invalidation_mode=mode)
    assert str(cached) in files.unmodified(expect()).evidence


def test_a_changed_record_does_not_hide_a_change_from_the_hosts_wheel(site):
    install(site, "flash_attn", "2.8.3", one="x = 2\n")
    original = hashlib.sha256(b"x = 1\n").hexdigest()
    wheel = {
        "filename": "flash_attn-2.8.3.whl",
        "files": {"flash_attn/one.py": original, "flash_attn/gone.py": original},
    }
    lines = files.unmodified(expect(wheel=wheel)).evidence.splitlines()
    assert [line.split(" is ")[1].split(":")[0].split(";")[0] for line in lines] == [
        "not the file in flash_attn-2.8.3.whl",
        "missing",
    ]


def test_the_hosts_wheel_is_looked_for_where_it_is_installed(site, tmp_path, monkeypatch):
    """As on Fedora: packages of pure Python in one folder, those with machine code in another."""
    pure = tmp_path / "a-folder-that-sorts-before"
    pure.mkdir()
    for module in (files, distributions):
        monkeypatch.setattr(module, "site_folders", lambda: [pure, site])
    install(site, "flash_attn", "2.8.3", one="x = 1\n")
    wheel = {"filename": "f.whl", "files": {"flash_attn/one.py": hashlib.sha256(b"x = 1\n").hexdigest()}}
    assert files.unmodified(expect(wheel=wheel)).status == "passed"


@pytest.fixture
def python_finds(site, monkeypatch, tmp_path):
    """Python looks for modules in the working directory and in the site folder, and forgets afterwards."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(packages.sys, "path", [str(site), *packages.sys.path])
    return work


def test_what_is_imported_is_what_was_installed(site, python_finds):
    install(site, "assay_sample_one", "1", **{"__init__": "raise RuntimeError('nobody imports this')"})
    answer = packages.imported(expect())
    assert (answer.status, answer.measured) == ("passed", "1 names of 1 packages, each found where it is installed")


@pytest.mark.parametrize("shadow", ["assay_sample_one.py", "assay_sample_one/__init__.py"])
def test_code_that_lies_before_an_installed_package_is_named(site, python_finds, shadow):
    install(site, "assay_sample_one", "1", **{"__init__": ""})
    (python_finds / shadow).parent.mkdir(exist_ok=True)
    (python_finds / shadow).write_text("")
    answer = packages.imported(expect())
    assert answer.status == "failed"
    assert answer.evidence == (
        f"assay_sample_one of assay-sample-one is in {site}, and Python finds it {python_finds / shadow}"
    )
