"""The scripts that run in the builder stage, as far as they need neither torch nor nvcc."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from assay import paths

SCRIPTS = paths.docker_dir() / "flash-attn"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a script as the builder stage runs it: its folder is first on the path."""

    def load(path: str) -> ModuleType:
        script = SCRIPTS / path
        monkeypatch.syspath_prepend(str(script.parent))
        for name in ("build", "kernels", "nvcc"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(script.stem)

    return load


def sdist(folder: Path) -> Path:
    """Write something with the shape of flash-attn's sdist."""
    package = folder / "flash_attn-2.8.3" / "flash_attn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "2.8.3"\n', encoding="utf-8")
    (package.parent / "setup.py").write_text("", encoding="utf-8")
    kernel = package.parent / "csrc/flash_attn/src/flash_fwd_hdim96_bf16_sm80.cu"
    kernel.parent.mkdir(parents=True)
    kernel.write_text("", encoding="utf-8")
    archive = folder / "flash_attn-2.8.3.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(package.parent, arcname="flash_attn-2.8.3")
    return archive


def test_a_compiled_file_is_one_line_with_its_seconds(load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = load("wheel/build.py")
    source = build.unpack(sdist(tmp_path), tmp_path / "work")
    objects = source / "build/temp.linux-x86_64-cpython-311/csrc/flash_attn/src"
    objects.mkdir(parents=True)
    built = objects / "flash_fwd_hdim96_bf16_sm80.o"
    (source / "build/temp.linux-x86_64-cpython-311/.ninja_log").write_text(
        f"# ninja log v6\n100\t9000\t0\t{built}\tabc\n1000\t42400\t0\t{built}\tdef\n", encoding="utf-8"
    )
    lines = [f"[7/26] nvcc -I/include {'-DX ' * 300} -c -o {built} source.cu", "ptxas info", "x" * 1000]
    code = build.follow([sys.executable, "-c", f"print({chr(10).join(lines)!r}); raise SystemExit(3)"], source, {})
    assert code == 3
    assert capsys.readouterr().out.splitlines() == [
        "[7/26] flash_fwd_hdim96_bf16_sm80.cu 41 s",
        "ptxas info",
        "x" * build.LINE_CHARACTERS,
    ]


def test_an_sdist_is_unpacked_once_and_half_unpacked_ones_are_replaced(load, tmp_path: Path) -> None:
    build = load("wheel/build.py")
    archive, work = sdist(tmp_path), tmp_path / "work"
    (work / "flash_attn-2.8.3").mkdir(parents=True)  # an unpacking that broke off
    source = build.unpack(archive, work)
    assert build.public_version(source) == "2.8.3"
    (source / "object.o").write_text("kept", encoding="utf-8")
    assert build.unpack(archive.parent, work) == source
    assert (source / "object.o").exists()


@pytest.mark.parametrize(
    ("free_gb", "processors", "jobs"), [(24.0, 2, 2), (8.0, 16, 1), (1.0, 4, 1), (43.5, 64, 10), (100.0, 8, 8)]
)
def test_jobs_are_as_many_as_memory_and_processors_allow(
    load, monkeypatch: pytest.MonkeyPatch, free_gb: float, processors: int, jobs: int
) -> None:
    build = load("wheel/build.py")
    monkeypatch.setattr(build, "available_bytes", lambda: free_gb * 1e9)
    monkeypatch.setattr(build.os, "sched_getaffinity", lambda _pid: set(range(processors)))
    assert build.jobs() == jobs


def test_free_memory_is_read_from_this_machine(load) -> None:
    assert 1e6 < load("wheel/build.py").available_bytes() < 1e14


def test_kernels_or_none_must_be_asked_for(load, capsys: pytest.CaptureFixture[str]) -> None:
    build = load("wheel/build.py")
    with pytest.raises(SystemExit):
        build.parse(["--sdist", "s", "--work", "w", "--wheel-dir", "d", "--head-dims", "96"])
    assert "--skip-cuda" in capsys.readouterr().err


def test_the_environment_keeps_setup_py_from_looking_for_a_release(load, monkeypatch: pytest.MonkeyPatch) -> None:
    build = load("wheel/build.py")
    arguments = ["--sdist", "s", "--work", "w", "--wheel-dir", "d"]
    kernels = ["--head-dims", "64", "--dtypes", "bf16", "--archs", "80", "90"]
    env = build.environment(build.parse([*arguments, *kernels]))
    assert env["FLASH_ATTENTION_FORCE_BUILD"] == "TRUE"
    assert env["FLASH_ATTENTION_SKIP_CUDA_BUILD"] == "FALSE"
    assert env["FLASH_ATTN_CUDA_ARCHS"] == "80;90"
    assert env["FLASH_ATTN_LOCAL_VERSION"] == "assay.hd64.bf16.sm80.90.fwd"
    env = build.environment(build.parse([*arguments, "--skip-cuda"]))
    assert env["FLASH_ATTENTION_SKIP_CUDA_BUILD"] == "TRUE"
    assert env["FLASH_ATTN_LOCAL_VERSION"] == "assay.nokernels"


def test_objects_are_kept_apart_by_what_they_were_compiled_with(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = load("wheel/build.py")
    monkeypatch.setattr(build.importlib.metadata, "version", lambda _name: "2.4.0")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    without = build.toolchain()
    (tmp_path / "made-from.json").write_text("{}", encoding="utf-8")
    assert build.toolchain() != without
    assert build.toolchain() == build.toolchain()


def test_installed_headers_are_made_as_old_as_the_release(load, tmp_path: Path) -> None:
    """Ninja compiles anew what is older than a header; an equal toolchain's headers are the same, installed later."""
    build = load("wheel/build.py")
    torch, cuda = tmp_path / "torch/include", tmp_path / "cuda"
    for header in (torch / "ATen/ATen.h", tmp_path / "site/cuda_runtime.h"):
        header.parent.mkdir(parents=True)
        header.touch()
    cuda.mkdir()
    (cuda / "include").symlink_to(tmp_path / "site")
    (cuda / "broken.h").symlink_to(tmp_path / "nowhere")
    build.age(torch, cuda, tmp_path / "no-such-folder")
    released = float(build.RELEASED)
    assert (torch / "ATen/ATen.h").stat().st_mtime == released
    assert (tmp_path / "site/cuda_runtime.h").stat().st_mtime == released


def deb_root(folder: Path) -> Path:
    """Lay out what Debian's package unpacks to."""
    for name in ("ptxas", "fatbinary", "cudafe++", "nvlink"):
        (folder / "usr/bin").mkdir(parents=True, exist_ok=True)
        (folder / "usr/bin" / name).write_text(name, encoding="utf-8")
    library = folder / "usr/lib/nvidia-cuda-toolkit"
    for name in ("bin/nvcc", "bin/cicc", "bin/crt/link.stub", "libdevice/libdevice.10.bc"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(name, encoding="utf-8")
    return folder


def package(site: Path, name: str, *files: str) -> Path:
    """Write an `nvidia` package with files into a site folder."""
    for file in files:
        path = site / "nvidia" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(site.name), encoding="utf-8")
    return site


def test_a_cuda_home_is_laid_out_and_the_first_site_wins(load, tmp_path: Path) -> None:
    nvcc = load("nvcc/nvcc.py")
    headers = package(tmp_path / "headers", "cuda_runtime", "include/cuda_runtime.h", "lib/libcudart.so.12")
    torch = package(tmp_path / "torch", "cuda_runtime", "include/cuda_runtime.h", "lib/libcudart.so.12")
    package(torch, "cublas", "include/cublas_v2.h", "lib/libcublas.so.12")
    home = tmp_path / "cuda"
    nvcc.lay_out(deb_root(tmp_path / "deb"), home, [headers, torch])
    assert (home / "bin/nvcc").read_text(encoding="utf-8") == "bin/nvcc"
    assert (home / "bin/nvcc.profile").read_text(encoding="utf-8") == nvcc.PROFILE
    assert (home / "nvvm/libdevice/libdevice.10.bc").is_file()
    assert (home / "include/cuda_runtime.h").read_text(encoding="utf-8") == "headers"
    assert (home / "include/cublas_v2.h").read_text(encoding="utf-8") == "torch"
    assert (home / "lib64/libcudart.so").resolve() == headers / "nvidia/cuda_runtime/lib/libcudart.so.12"
    assert not (home / "lib64/libcublas.so.12").exists()  # the extension links against cudart alone


def test_a_package_without_a_program_is_an_error(load, tmp_path: Path) -> None:
    nvcc = load("nvcc/nvcc.py")
    root = deb_root(tmp_path / "deb")
    (root / "usr/bin/ptxas").unlink()
    with pytest.raises(FileNotFoundError, match="ptxas"):
        nvcc.lay_out(root, tmp_path / "cuda", [])


def test_apt_reads_only_the_component_that_holds_the_package(load, tmp_path: Path) -> None:
    nvcc = load("nvcc/nvcc.py")
    sources = tmp_path / "trixie.list"
    sources.write_text(
        "deb [signed-by=/k.gpg] http://mirror.test/debian trixie main contrib non-free\n"
        "deb http://mirror.test/debian trixie-updates main contrib non-free\n"
        "deb http://mirror.test/debian-security trixie-security main\n",
        encoding="utf-8",
    )
    narrowed = nvcc.narrowed(sources, nvcc.find("12.4.131"))
    assert narrowed == "deb [signed-by=/k.gpg] http://mirror.test/debian trixie non-free\n"


def system(root: Path, os_release: str, **files: str) -> Path:
    """Write a root file system with apt's sources: `images_sources` is images.sources."""
    (root / "etc/apt/sources.list.d").mkdir(parents=True)
    (root / "etc/os-release").write_text(os_release, encoding="utf-8")
    for name, text in files.items():
        (root / "etc/apt/sources.list.d" / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return root


DEBIAN = 'ID=debian\nVERSION_CODENAME="bookworm"\n'
UBUNTU = "ID=ubuntu\nVERSION_CODENAME=jammy\n"


def test_neither_machine_nor_image_with_a_debian_mirror_is_told_what_to_do(load, tmp_path: Path) -> None:
    nvcc = load("nvcc/nvcc.py")
    ubuntu = system(tmp_path / "ubuntu", UBUNTU, a_list="deb http://mirror.test/ubuntu jammy main\n")
    (tmp_path / "scratch").mkdir()
    with pytest.raises(SystemExit, match=r"Debian trixie.*Debian mirror.*--wheelhouse"):
        nvcc.download(nvcc.find("12.4"), tmp_path, tmp_path / "scratch", ubuntu)


def test_on_a_machine_that_is_no_debian_the_images_own_mirrors_serve(load, tmp_path: Path) -> None:
    """A hosted runner is Ubuntu, and the base image is Debian's own."""
    nvcc = load("nvcc/nvcc.py")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    debian = system(
        tmp_path / "debian",
        DEBIAN,
        debian_sources=(
            "Types: deb\n# http://snapshot.test/debian\nURIs: http://mirror.test/debian\n"
            f"Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: {keyring}\n\n"
            "Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\nComponents: main\n"
            f"Signed-By: {keyring}\n\n"
            "Types: deb-src\nURIs: http://source.test/debian\nSuites: bookworm\nComponents: main\n\n"
            "Types: deb\nURIs: http://other.test/apt\nSuites: bookworm\nComponents: main\nSigned-By: /other.gpg\n"
        ),
        old_list=(
            f"deb http://second.test/debian bookworm main contrib\ndeb [arch=amd64 signed-by={keyring}] http://third.test/d"
            " bookworm main\ndeb [signed-by=/other.gpg] http://tools.test/x bookworm main\n"
            "deb http://mirror.test/apt tools-bookworm main\n# deb http://off.test/debian bookworm main\n"
        ),
        backup_save="deb http://backup.test/debian bookworm main\n",
    )
    assert nvcc.of_the_image(debian, nvcc.find("12.4")).splitlines() == [
        f"deb [signed-by={keyring}] http://mirror.test/debian trixie non-free",
        "deb http://second.test/debian trixie non-free",
        f"deb [signed-by={keyring}] http://third.test/d trixie non-free",
    ]
    folder = network(tmp_path / "network", b"package")
    (folder / "apt/trixie.conf").unlink()
    (tmp_path / "scratch").mkdir()
    compiler = {**nvcc.find("12.4"), "sha256": hashlib.sha256(b"package").hexdigest()}
    assert nvcc.download(compiler, folder, tmp_path / "scratch", debian).read_bytes() == b"package"
    assert "mirror.test/debian trixie" in (tmp_path / "scratch/sources.list").read_text(encoding="utf-8")


def network(folder: Path, content: bytes) -> Path:
    """Write a `run.sh` that stands in for apt: `download` leaves a file with this content where it is run."""
    (folder / "apt").mkdir(parents=True)
    (folder / "apt/trixie.conf").write_text("", encoding="utf-8")
    (folder / "apt/trixie.list").write_text("deb http://mirror.test/debian trixie main\n", encoding="utf-8")
    (folder / "deb").write_bytes(content)
    script = 'here=$(dirname "$0")\ncase "$*" in *" download "*) cp "$here/deb" nvcc.deb;; esac\n'
    (folder / "run.sh").write_text(script, encoding="utf-8")
    return folder


def test_a_package_with_another_hash_is_not_used(load, tmp_path: Path) -> None:
    nvcc = load("nvcc/nvcc.py")
    (tmp_path / "scratch").mkdir()
    compiler = nvcc.find("12.4")
    with pytest.raises(SystemExit, match=f"sha256 {hashlib.sha256(b'other').hexdigest()}.*{compiler['sha256']}"):
        nvcc.download(compiler, network(tmp_path / "network", b"other"), tmp_path / "scratch")


def test_a_package_with_the_pinned_hash_is_used(load, tmp_path: Path) -> None:
    nvcc = load("nvcc/nvcc.py")
    (tmp_path / "scratch").mkdir()
    compiler = {**nvcc.find("12.4"), "sha256": hashlib.sha256(b"package").hexdigest()}
    package = nvcc.download(compiler, network(tmp_path / "network", b"package"), tmp_path / "scratch")
    assert package.read_bytes() == b"package"


def test_what_a_cuda_home_was_made_from_changes_with_the_headers(
    load, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    nvcc = load("nvcc/nvcc.py")
    made_from = json.loads(nvcc.made_from(nvcc.find("12.4")))
    assert "nvidia-cuda-runtime-cu12==12.4.127" in made_from["headers"]
    assert json.loads(nvcc.made_from(nvcc.find("11.8")))["headers"] is None
