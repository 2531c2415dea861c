"""Does every library of the Python environment find what it needs: its libraries, their versions, every symbol.

Two readers work together. The image's own loader is asked (`loader.py`) about every shared library of the
environment, each as Python would load it after `import torch`. The ELF files are read as well (`elf.py`) to say who
needs what is missing.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from . import elf, loader
from .distributions import site_folders
from .framework import Answer, Expect, check, failed, passed

# The driver brings these; an image must not. Without a GPU they are absent, and with them symbols of these prefixes.
OF_THE_DRIVER = {"libcuda.so.1": "cu", "libnvidia-ml.so.1": "nvml", "libnvidia-ptxjitcompiler.so.1": "__cu"}
# Whose libraries a row may not let be unloadable, whatever it calls optional: packages and modules in a site folder.
NEVER_OPTIONAL = {"torch", "functorch", "flash_attn", "flash_attn_2_cuda", "nvidia", "triton"}
# The part of an extension module's name that tells the interpreter: `.cpython-311-x86_64-linux-gnu.so`, `.abi3.so`.
INTERPRETER_TAG = re.compile(r"\.(?:cpython-[\w-]+|abi3)\.so$")
SHOWN, FEW = 40, 5
# Traces at a time. Each binds every symbol of what it maps, in memory of its own; a container of level image has 8 GiB.
MOST_TRACES = 8

# Plug-ins that NVIDIA's packages bring for the hardware and the launchers of a cluster, loaded by name only where a job
# asks for them or the machine has them: NVSHMEM's bootstraps and transports (NVSHMEM documentation, NVSHMEM_BOOTSTRAP
# and NVSHMEM_REMOTE_TRANSPORT), cuFile's RDMA part (GPUDirect Storage documentation). torch 2.11 requires both
# packages. What they need of the cluster is not there in an image, and nothing else is forgiven them.
CLUSTER_PLUGIN = re.compile(r"(nvshmem_(bootstrap|transport)_\w+|libcufile_rdma)\.so(\.\d+)*")
CLUSTER_LIBRARY = re.compile(r"lib(mlx5|ibverbs|rdmacm|fabric|uc[pst]|mpi|pmi2?|pmix|oshmem)\.so\.\d+")
CLUSTER_SYMBOL = re.compile(r"(mlx5dv|ibv|rdma|fi|uc[pst]|MPI|ompi|PMIx?2?|pmix|shmem)_")


@check(
    "libraries.resolved",
    "Does every shared library find every library, version and symbol that it needs?",
    timeout=180.0,
)
def resolved(expect: Expect) -> Answer:
    """Trace torch, then each further library as a Python process that has imported torch would load it.

    For those that need one of torch's libraries, everything that torch maps is loaded first, by path: the loader
    goes by the name of what is there already. Torch's roots alone would not do: the needs of a further library
    would be looked for before those of torch's libraries. A library that needs none of them is traced alone, which
    is thirty times faster.
    """
    required = "every needed library, symbol version and symbol of every ELF file of the environment is there"
    files, damaged = elf_files(site_folders())
    roots = torch_roots(files)
    needed_by = who_needs(files)
    auxiliary = {name for file in files for name in file.auxiliary} - needed_by.keys()
    problems = dict.fromkeys(damaged)  # a set that keeps its order
    absent: set[str] = set()
    plugins: set[str] = set()
    unloadable: dict[str, str] = {}
    dispensable: set[str] = set()
    try:
        torch, python = loader.trace(roots), loader.trace([])
        beyond = {name: path for name, path in torch.found.items() if name not in python.found}
        of_torch = beyond.keys() & {Path(file.path).name for file in files}  # without libstdc++ and the like

        def one(file: elf.Elf) -> loader.Trace:
            if file.interpreter:
                return loader.trace([], program=file.path)
            if not of_torch & set(file.needed):
                alone = loader.trace([file.path])
                if alone.is_complete:
                    return alone
            return loader.trace([*roots, *beyond.values(), file.path])

        # What torch maps is in torch's own trace.
        further = [file for file in files if file.path not in {*roots, *beyond.values()}]
        with ThreadPoolExecutor(max_workers=min(MOST_TRACES, (os.cpu_count() or 1) + 1)) as pool:
            traces = [torch, *pool.map(one, further)]
    except loader.NoTraceError as error:
        return Answer("error", required, "the dynamic loader cannot be asked", str(error))
    told: list[list[str]] = []
    sound: set[str] = set()
    for found in traces:
        absent.update(name for name in found.missing if name in OF_THE_DRIVER)
        needed, idle = forgive(found, needed_by, auxiliary)
        plugins.update(idle)
        told.append(describe(needed, needed_by))
        if not told[-1]:
            sound.update(os.path.realpath(path) for path in found.found.values())
    problems.update(dict.fromkeys(told[0]))
    for file, found, lines in zip(further, traces[1:], told[1:]):  # noqa: B905  (strict= needs Python 3.10)
        if not lines or (is_bundled(file.path) and os.path.realpath(file.path) in sound):
            continue
        place = place_of_plug_in(file, needed_by)
        if place and any(fnmatch.fnmatchcase(place, pattern) for pattern in expect["optional_libraries"]):
            gone = sorted(set(found.missing) & set(file.needed) - OF_THE_DRIVER.keys())
            unloadable[place] = f"no {', '.join(gone)}" if gone else lines[0]
            continue
        problems.update(dict.fromkeys(lines))
        if place:
            dispensable.add(INTERPRETER_TAG.sub(".*.so", place))
    without = f"; left to the driver: {', '.join(sorted(absent))}" if absent else ""
    if plugins:
        without += f"; plug-ins for a cluster, which is not here: {', '.join(sorted(plugins))}"
    if unloadable:
        told_of = [f"{place} ({why})" for place, why in sorted(unloadable.items())]
        without += f"; unloadable, as the row lets them be: {', '.join(told_of[:FEW])}"
        without += f" and {len(told_of) - FEW} more" if len(told_of) > FEW else ""
    measured = f"{len(files)} ELF files{without}"
    facts = {
        "files": len(files),
        "left_to_the_driver": sorted(absent),
        "cluster_plugins": sorted(plugins),
        "unloadable": unloadable,
    }
    if problems:
        lines = list(problems)
        shown = lines[:SHOWN] + ([f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
        if dispensable:
            names = ", ".join(map(json.dumps, sorted(dispensable)[:SHOWN]))
            # First: reports show the end of what is evident, which is the trouble itself.
            shown.insert(0, f"where nothing loads them, a row can do without plug-ins: optional-libraries = [{names}]")
        return failed(
            required, f"problems: {len(lines)} in {len(files)} ELF files, such as {lines[0]}", "\n".join(shown), **facts
        )
    rest = "everything else" if unloadable else "everything"
    return passed(required, f"{measured}; {rest} is resolved", **facts)


def elf_files(folders: Iterable[Path]) -> tuple[list[elf.Elf], list[str]]:
    """Return every dynamically linked library and program below some folders, and a line per damaged one."""
    found, damaged = {}, []
    for root in folders:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                if (".so" in name or os.access(path, os.X_OK)) and elf.is_elf(path):
                    try:
                        found[str(path)] = elf.read(path)
                    except elf.NotElfError as error:
                        damaged.append(str(error))
    return [found[path] for path in sorted(found) if found[path].dynamic], damaged


def place_of_plug_in(file: elf.Elf, needed_by: dict[str, list[str]]) -> str:
    """Return where a library lies in its site folder, if a row may do without it: in a package, and needed by no other.

    Nothing for all others. What torch and flash-attn are made of has to be loadable, whatever else a row does without.
    A module that lies beside the packages is none's plug-in, and the matrix takes no name for it.
    """
    path = os.path.realpath(file.path)
    folders = [os.path.realpath(site) for site in site_folders()]
    place = next((path[len(site) + 1 :] for site in folders if path.startswith(f"{site}/")), "")
    module = place.partition("/")[0].partition(".")[0]
    dispensable = "/" in place and module not in NEVER_OPTIONAL and Path(file.path).name not in needed_by
    return place if dispensable else ""


def is_bundled(path: str) -> bool:
    """Say whether a library is one that auditwheel put beside a package, for that package's own extensions alone.

    Nothing opens it by itself. It may have no search path of its own (numpy 1's libgfortran has none) and find what it
    needs by that of the extension that needs it (DT_RPATH holds for what is loaded in turn): a trace of that extension
    has bound its symbols too.
    """
    return Path(path).parent.name.endswith(".libs")


def torch_roots(files: Iterable[elf.Elf]) -> list[str]:
    """Return what `import torch` loads, in its order: the global dependencies first, then the extension module."""
    by_name = {Path(file.path).name: file.path for file in files if "/torch/" in file.path}
    roots = [path for name, path in by_name.items() if name == "libtorch_global_deps.so"]
    return roots + [
        path for name, path in by_name.items() if name.startswith("_C.") and path.endswith(f"/torch/{name}")
    ]


def who_needs(files: Iterable[elf.Elf]) -> dict[str, list[str]]:
    """Return the files that need each library, by the library's name."""
    needed_by: dict[str, list[str]] = {}
    for file in files:
        for name in file.needed:
            needed_by.setdefault(name, []).append(file.path)
    return needed_by


def forgive(found: loader.Trace, needed_by: dict[str, list[str]], auxiliary: set[str]) -> tuple[loader.Trace, set[str]]:
    """Return the trace without what need not be there, and the names of the plug-ins that were forgiven something.

    auxiliary: names that some file asks for as DT_AUXILIARY and none as DT_NEEDED: the loader goes on without them
    (ld.so(8), `ld -f`). NVIDIA's libnvtx3interop asks for one called `visibility=hidden`, a compiler flag gone astray.
    """
    idle: set[str] = set()
    missing, undefined = [], []
    for name in found.missing:
        users = [Path(path).name for path in needed_by.get(name, ())]
        if CLUSTER_LIBRARY.fullmatch(name) and users and all(CLUSTER_PLUGIN.fullmatch(user) for user in users):
            idle.update(users)
        elif name not in auxiliary:
            missing.append(name)
    for path, text in found.undefined:
        symbol = text.partition(": ")[2]
        if CLUSTER_PLUGIN.fullmatch(Path(path).name) and CLUSTER_SYMBOL.match(symbol):
            idle.add(Path(path).name)
        else:
            undefined.append((path, text))
    return replace(found, missing=tuple(missing), undefined=tuple(undefined)), idle


def describe(found: loader.Trace, needed_by: dict[str, list[str]]) -> list[str]:
    """Return a line per thing that is missing, in the loader's own words.

    Left out are what the driver brings, and the symbols of a library that is missing as a whole.
    """
    problems = []
    for name in found.missing:
        if name not in OF_THE_DRIVER:
            users = ", ".join(needed_by.get(name, ["a library outside the environment"]))
            problems.append(f"{name}: cannot open shared object file: No such file or directory (needed by {users})")
    brought = tuple(OF_THE_DRIVER[name] for name in found.missing if name in OF_THE_DRIVER)
    for path, text in found.undefined:
        symbol, _, version = text.partition(": ")[2].partition(", version ")
        if version not in found.missing and not (brought and symbol.startswith(brought)):
            problems.append(f"{path}: {text}")
    return problems + list(found.other)
