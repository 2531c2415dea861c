"""Reading ELF files and asking the dynamic loader, on the real files of this machine's Python."""

from __future__ import annotations

import re
import resource
import signal
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from checks_package import family
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from assay.matrix import rules
from assay.matrix.schema import PLUG_IN

elf, loader, libraries = family("elf"), family("loader"), family("libraries")
PYTHON = Path(sys.executable).resolve()
EXTENSIONS = sorted(Path(sysconfig.get_path("platstdlib"), "lib-dynload").glob("*.so"))[:12]
JIT = "undefined symbol: __nvJitLinkAddData_12_1, version libnvJitLink.so.12"


@pytest.mark.parametrize("path", [PYTHON, *EXTENSIONS], ids=lambda path: path.name)
def test_agrees_with_pyelftools(path):
    with path.open("rb") as file:
        other = ELFFile(file)
        dynamic = other.get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
        runpath = [tag.runpath for tag in dynamic.iter_tags("DT_RUNPATH")]
        symbols = {
            (symbol.name, symbol["st_shndx"] != "SHN_UNDEF", symbol["st_info"]["bind"] == "STB_WEAK")
            for symbol in other.get_section_by_name(".dynsym").iter_symbols()
            if symbol.name and symbol["st_info"]["bind"] != "STB_LOCAL"
        }
        interpreted = any(segment["p_type"] == "PT_INTERP" for segment in other.iter_segments())
    read = elf.read(path)
    assert list(read.needed) == needed
    assert read.runpath == "".join(runpath)
    assert bool(read.interpreter) == interpreted
    assert {(symbol.name, symbol.defined, symbol.weak) for symbol in elf.symbols(path)} == symbols


@pytest.mark.parametrize(
    "content", [b"", b"MZ\x90", b"\x7fELF\x02\x01" + b"\0" * 20, b"\x7fELF\x02\x01\x01" + b"\xff" * 200]
)
def test_what_is_no_elf_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "libodd.so"
    path.write_bytes(content)
    with pytest.raises(elf.NotElfError, match=r"libodd\.so"):
        elf.read(path)


def test_the_loader_tells_where_pythons_own_libraries_come_from():
    trace = loader.trace([])
    assert Path(trace.found["libc.so.6"]).is_file()
    assert trace.is_complete


@pytest.fixture
def compiled(tmp_path):
    """A library that needs another one and a symbol of it, as two real files."""

    def compile_one(name: str, source: str, *options: str) -> Path:
        (tmp_path / f"{name}.c").write_text(source)
        command = [
            "cc",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{name}",
            "-o",
            tmp_path / name,
            tmp_path / f"{name}.c",
            *options,
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("needs a C compiler")
        return tmp_path / name

    lower = compile_one("liblower.so.1", "int lower(void) { return 1; }\n")
    upper = compile_one(
        "libupper.so.1", "int lower(void); int upper(void) { return lower(); }\n", str(lower), f"-Wl,-rpath,{tmp_path}"
    )
    return lower, upper, compile_one


def test_a_missing_library_is_named_with_who_needs_it(compiled):
    lower, upper, _ = compiled
    assert loader.trace([str(upper)]).is_complete
    lower.unlink()
    needed_by = libraries.who_needs([elf.read(upper)])
    lines = libraries.describe(loader.trace([str(upper)]), needed_by)
    assert lines[0] == (f"liblower.so.1: cannot open shared object file: No such file or directory (needed by {upper})")


def test_a_missing_symbol_is_named_in_the_loaders_words(compiled):
    lower, upper, compile_one = compiled
    compile_one(lower.name, "int another(void) { return 2; }\n")
    assert libraries.describe(loader.trace([str(upper)]), {}) == [f"{upper}: undefined symbol: lower"]


def test_a_file_that_is_no_library_is_a_problem(tmp_path):
    broken = tmp_path / "libbroken.so"
    broken.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 9)
    assert str(broken) in " ".join(loader.trace([str(broken)]).other)


def test_a_library_that_takes_the_loader_down_is_a_problem_and_not_half_a_story(compiled):
    """Libraries are listed before symbols are bound: what is printed until then names no missing symbol."""
    _, upper, _ = compiled
    damage(upper)
    assert libraries.describe(loader.trace([str(upper)]), {}) == [
        f"{upper}: the dynamic loader crashes on it (SIGSEGV)"
    ]


def damage(library: Path) -> None:
    """Let the library's first relocation write to an address that is not there."""
    with library.open("r+b") as file:
        section = ELFFile(file).get_section_by_name(".rela.dyn")
        file.seek(section["sh_offset"])
        file.write(struct.pack("<Q", 0x7FFF_FFFF_F000))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGBUS"])
def test_a_loader_that_was_killed_has_said_nothing(monkeypatch, name):
    printed = " libc.so.6 => /lib/libc.so.6 (0x00007f0000000000)\n"
    ended = subprocess.CompletedProcess([], -signal.Signals[name], printed, "")
    monkeypatch.setattr(loader.subprocess, "run", lambda *arguments, **options: ended)
    with pytest.raises(loader.NoTraceError, match=f"killed by {name}"):
        loader.trace([])


def test_a_machine_without_memory_for_a_library_has_said_nothing_of_it(compiled, monkeypatch):
    large = str(compiled[2]("liblarge.so", "char room[1 << 30]; char *large(void) { return room; }"))
    assert loader.trace([large]).is_complete
    start = subprocess.run

    def with_little(*arguments, **options):
        least = 512 << 20
        return start(*arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (least, least)), **options)

    monkeypatch.setattr(loader.subprocess, "run", with_little)
    assert loader.trace([]).is_complete
    with pytest.raises(loader.NoTraceError, match=r"no memory: \S+liblarge\.so: failed to map segment"):
        loader.trace([large])


def test_an_auxiliary_library_need_not_be_there(compiled):
    _, _, compile_one = compiled
    asks = compile_one("libasks.so.1", "int asks(void) { return 3; }\n", "-Wl,--auxiliary=visibility=hidden")
    file = elf.read(asks)
    assert file.auxiliary == ("visibility=hidden",)
    trace = loader.trace([str(asks)])
    assert trace.missing == ("visibility=hidden",)
    forgiven, idle = libraries.forgive(trace, {}, set(file.auxiliary))
    assert (libraries.describe(forgiven, {}), idle) == ([], set())
    assert libraries.describe(libraries.forgive(trace, {}, set())[0], {}), "needed by a file: not forgiven"


def test_a_plugin_for_a_cluster_may_lack_the_cluster_and_nothing_else(compiled):
    _, _, compile_one = compiled
    source = "int MPI_Init(void); int cudaMalloc(void); int plug(void) { return MPI_Init() + cudaMalloc(); }\n"
    plugin = compile_one("nvshmem_bootstrap_mpi.so.3", source)
    found, idle = libraries.forgive(loader.trace([str(plugin)]), {}, set())
    assert idle == {"nvshmem_bootstrap_mpi.so.3"}
    assert libraries.describe(found, {}) == [f"{plugin}: undefined symbol: cudaMalloc"]
    other = compile_one("libother.so.1", source)
    found, idle = libraries.forgive(loader.trace([str(other)]), {}, set())
    assert len(libraries.describe(found, {})) == 2
    assert not idle


def test_a_cluster_library_that_others_need_too_is_missing():
    trace = loader.parse("\tlibmlx5.so.1 => not found\n\tlibcudart.so.13 => not found\n")
    plugin, other = "/opt/libcufile_rdma.so.1", "/opt/libtorch.so"
    found, idle = libraries.forgive(trace, {"libmlx5.so.1": [plugin], "libcudart.so.13": [plugin]}, set())
    assert (found.missing, idle) == (("libcudart.so.13",), {"libcufile_rdma.so.1"})
    found, idle = libraries.forgive(trace, {"libmlx5.so.1": [plugin, other]}, set())
    assert (found.missing, idle) == (("libmlx5.so.1", "libcudart.so.13"), set())


def test_what_the_driver_brings_is_left_out():
    trace = loader.parse(
        "\tlibcuda.so.1 => not found\n"
        "\tlibnvrtc.so.12 => /opt/nvidia/lib/../lib/libnvrtc.so.12 (0x00007f0000000000)\n"
        "undefined symbol: cuInit\t(/opt/torch/lib/libcaffe2_nvrtc.so)\n"
        f"{JIT}\t(/opt/torch/lib/../../nvidia/cusparse/lib/libcusparse.so.12)\n"
        "/lib/libc.so.6: version `GLIBC_2.38' not found (required by /opt/flash_attn_2_cuda.so)\n"
    )
    assert trace.found == {"libnvrtc.so.12": "/opt/nvidia/lib/libnvrtc.so.12"}
    assert libraries.describe(trace, {}) == [
        f"/opt/nvidia/cusparse/lib/libcusparse.so.12: {JIT}",
        "/lib/libc.so.6: version `GLIBC_2.38' not found (required by /opt/flash_attn_2_cuda.so)",
    ]


def test_a_damaged_library_of_the_environment_is_a_problem(tmp_path):
    (tmp_path / "libodd.so").write_bytes(b"\x7fELF\x02\x01\x01" + b"\xff" * 200)
    files, damaged = libraries.elf_files([tmp_path])
    assert files == []
    assert str(tmp_path / "libodd.so") in damaged[0]


@pytest.fixture
def repaired(compiled, tmp_path, monkeypatch):
    """A wheel as auditwheel repairs it: an extension that finds its libraries, which cannot find each other."""
    _, _, compile_one = compiled
    site = tmp_path / "site"
    (site / "lib").mkdir(parents=True)
    (site / "lib.libs").mkdir()
    inner = compile_one("libinner.so.1", "int inner(void) { return 1; }")
    outer = compile_one("libouter.so.1", "int inner(void); int outer(void) { return inner(); }", str(inner))
    needs = "int outer(void); int all(void) { return outer(); }"
    # DT_RPATH, which holds for what is loaded in turn, as auditwheel writes it.
    search = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib.libs"
    extension = compile_one("extension.so", needs, str(outer), f"-L{tmp_path}", "-Wl,--allow-shlib-undefined", search)
    extension.rename(site / "lib" / extension.name)
    for library in (inner, outer):
        library.rename(site / "lib.libs" / library.name)
    monkeypatch.setattr(libraries, "site_folders", lambda: [site])
    return site


def test_libraries_that_a_package_bundles_are_judged_as_its_extensions_load_them(repaired):
    assert not loader.trace([str(repaired / "lib.libs/libouter.so.1")]).is_complete
    answer = libraries.resolved({"optional_libraries": []})
    assert (answer.status, answer.evidence) == ("passed", "")
    assert answer.data["files"] == 3


def test_a_bundled_library_that_is_missing_is_named(repaired):
    (repaired / "lib.libs/libinner.so.1").unlink()
    answer = libraries.resolved({"optional_libraries": []})
    assert answer.status == "failed"
    assert "libinner.so.1: cannot open shared object file" in answer.evidence


def test_a_bundled_library_that_no_extension_loads_is_judged_by_itself(repaired):
    (repaired / "lib/extension.so").unlink()
    answer = libraries.resolved({"optional_libraries": []})
    assert answer.status == "failed"
    assert "libinner.so.1: cannot open shared object file" in answer.evidence


def test_a_library_among_a_packages_own_has_to_find_its_needs_itself(repaired):
    """It may be opened by its name, by ctypes, say: no extension's search path helps there."""
    (repaired / "lib/libouter.so.1").write_bytes((repaired / "lib.libs/libouter.so.1").read_bytes())
    answer = libraries.resolved({"optional_libraries": []})
    assert answer.status == "failed"
    assert f"needed by {repaired}/lib" in answer.evidence


@pytest.fixture
def with_plug_in(repaired, compiled, tmp_path):
    """A package with a plug-in for a library that is not there, as numba has one for TBB."""
    _, _, compile_one = compiled
    gone = compile_one("libgone.so.1", "int gone(void) { return 1; }")
    plug_in = compile_one("plugin.so", "int gone(void); int plug(void) { return gone(); }", str(gone))
    gone.unlink()
    return plug_in.rename(repaired / "lib" / plug_in.name)


def test_a_plug_in_for_a_library_that_is_not_there_fails_and_the_way_out_is_named(with_plug_in):
    answer = libraries.resolved({"optional_libraries": []})
    assert answer.status == "failed"
    assert "libgone.so.1: cannot open shared object file" in answer.evidence
    assert answer.evidence.splitlines()[0].endswith('optional-libraries = ["lib/plugin.so"]')


def test_a_row_that_calls_the_plug_in_optional_lets_it_be_unloadable_and_nothing_else(with_plug_in):
    answer = libraries.resolved({"optional_libraries": ["lib/plug*", "lib/unheard.so"]})
    assert (answer.status, answer.evidence) == ("passed", "")
    assert "unloadable, as the row lets them be: lib/plugin.so (no libgone.so.1)" in answer.measured
    assert answer.data["unloadable"] == {"lib/plugin.so": "no libgone.so.1"}
    (with_plug_in.parents[1] / "lib.libs/libinner.so.1").unlink()
    answer = libraries.resolved({"optional_libraries": ["lib/plugin.so"]})
    assert answer.status == "failed"
    assert "libgone" not in answer.evidence


def test_the_matrix_and_the_check_agree_on_what_is_never_optional():
    assert rules.NEVER_OPTIONAL == libraries.NEVER_OPTIONAL


@pytest.mark.parametrize("module", ["torch", "flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so"])
def test_of_torch_and_flash_attn_nothing_is_optional(with_plug_in, module):
    place = with_plug_in.parents[1] / module
    if module == "torch":
        place.mkdir()
        place = place / "libtorch_more.so"
    with_plug_in.rename(place)
    answer = libraries.resolved({"optional_libraries": ["*"]})
    assert answer.status == "failed"
    assert "libgone.so.1" in answer.evidence
    assert "optional-libraries" not in answer.evidence


def test_a_module_beside_the_packages_is_no_plug_in_and_the_matrix_takes_no_name_for_it(with_plug_in):
    module = with_plug_in.rename(with_plug_in.parents[1] / "_extension.cpython-311-x86_64-linux-gnu.so")
    assert not re.fullmatch(PLUG_IN, module.name)
    answer = libraries.resolved({"optional_libraries": ["*"]})
    assert answer.status == "failed"
    assert "libgone.so.1" in answer.evidence
    assert "optional-libraries" not in answer.evidence


def test_a_plug_in_that_lacks_a_symbol_is_told_with_it(repaired, compiled):
    compile_one = compiled[2]
    plug_in = compile_one(
        "plugin.so", "int gone(void); int plug(void) { return gone(); }", "-Wl,--allow-shlib-undefined"
    )
    place = plug_in.rename(repaired / "lib" / plug_in.name)
    answer = libraries.resolved({"optional_libraries": ["lib/plugin.so"]})
    assert answer.status == "passed"
    assert answer.data["unloadable"] == {"lib/plugin.so": f"{place}: undefined symbol: gone"}
    assert f"lets them be: lib/plugin.so ({place}: undefined symbol: gone);" in answer.measured


def test_what_another_library_needs_is_no_plug_in(with_plug_in, compiled):
    _, _, compile_one = compiled
    user = compile_one("user.so", "int plug(void); int use(void) { return plug(); }", str(with_plug_in))
    user.rename(with_plug_in.parent / user.name)
    answer = libraries.resolved({"optional_libraries": ["*"]})
    assert answer.status == "failed"
    assert "optional-libraries" not in answer.evidence
