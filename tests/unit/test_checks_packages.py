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
