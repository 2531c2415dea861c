"""What no engine could build: a row that asks for something that is not pinned, or for what its base cannot install.

Such a row would come out inconclusive however often it ran. A row that is to be rejected may want exactly a build
step that fails (`because` names `build.python`): where that step would be the evidence, the rule is silent.
"""

from __future__ import annotations

from collections.abc import Iterator

from assay import pinned
from assay.errors import MatrixError
from assay.matrix.distributions import base_with, system_of
from assay.matrix.draft import Draft
from assay.matrix.rule import Context, Problem, Rule
from assay.matrix.schema import RowFields
from assay.releases import TorchBuild
from assay.suggest import perhaps


def _python(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """There is a torch for the row's Python, a lock of it, and a way for the base to have that Python."""
    build = context.torch(row)
    if build is None or context.refused(draft, "python", "torch"):
        return
    locked = [python for python in build.pythons if not _missing(build, python, row)]
    if row.python not in build.pythons:
        nearest = perhaps(row.python, locked or build.pythons)
        yield ("python",), f"torch {row.torch} has no wheel for Python {row.python}; {nearest}"
    elif missing := _missing(build, row.python, row):
        subject, what_to_do = (
            (f"torch {row.torch} is not locked for Python {row.python}", perhaps(row.python, locked))
            if locked
            else (f"torch {row.torch} is not locked", f"write it with `nox -s lock -- {build.lock}`")
        )
        yield ("python" if locked else "torch",), f"{subject}: docker/locks/{missing} is missing; {what_to_do}"
    else:
        yield from _python_of_base(draft, row, context, locked)


def _missing(build: TorchBuild, python: str, row: RowFields) -> str | None:
    """Return the first lock that the row would need for this Python and that is not there."""
    wanted = [pinned.torch_lock(build, python)]
    wanted += [pinned.runtime_lock(build, python)] if row.runtime != "none" else []
    return next((lock for lock in wanted if not pinned.is_locked(lock)), None)


def _python_of_base(draft: Draft, row: RowFields, context: Context, locked: list[str]) -> Iterator[Problem]:
    """Judge the Pythons of a Debian or Ubuntu; `_apt` speaks of bases without apt."""
    system = system_of(row.base)
    if system is None or not system.apt or row.python in system.pythons or _is_to_fail(row, "python"):
        return
    if context.refused(draft, "base"):
        return
    usable = [python for python in system.pythons if python in locked]
    other = base_with(row.python)
    ways = [
        *([perhaps(row.python, usable)] if usable else []),
        *([f"take a base that has it, such as {other!r}"] if other else []),
    ]
    where = ("python",) if ("python",) in draft.origin else ("base",)
    yield (
        where,
        f"{row.base} has no Python {row.python}, and neither has its package archive (it has "
        f"{' and '.join(system.pythons)}); {', or '.join(ways) or 'take a base of your own that has it'}",
    )


def _apt(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """What assay installs with apt is not asked of a base that is known to have none."""
    system = system_of(row.base)
    if system is None or system.apt or context.refused(draft, "base", "python", "torch", "flash-attn", "toolkit"):
        return
    wanted = {
        "python": f"Python {row.python}" if row.torch != "base" and row.python not in system.pythons else "",
        "flash-attn": "the compiler for flash-attn" if row.flash_attn.source == "compile" else "",
        "toolkit": 'the toolkit "debian"' if row.toolkit == "debian" else "",
    }
    steps = {part: what for part, what in wanted.items() if what}
    if steps and not any(_is_to_fail(row, part) for part in steps):
        other = base_with(row.python) or "debian:bookworm"
        yield (
            ("base",),
            f"{row.base} has no apt, with which assay installs {' and '.join(steps.values())}; take a base of Debian "
            f"or Ubuntu, such as {other!r}, or one of your own that brings it",
        )


def _is_to_fail(row: RowFields, part: str) -> bool:
    """Tell whether the row is to be rejected because building this part fails."""
    return any(reason.check == f"build.{part}" for reason in row.because)


def _toolkit(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """The wheels of a toolkit are locked."""
    release = context.cuda(row)
    if row.toolkit != "wheels" or release is None or not release.packages:
        return
    lock = pinned.cuda_lock(release)
    if not pinned.is_locked(lock):
        yield (
            ("cuda",),
            f"CUDA {release.name} is not locked: docker/locks/{lock} is missing; write it with "
            f"`nox -s lock -- {lock.removesuffix('.txt')}`",
        )


def _runtime(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """The drawing pipeline's packages are locked beside a torch of assay's."""
    if row.torch == "base" and row.runtime != "none" and not context.refused(draft, "torch", "runtime"):
        yield (
            ("runtime",),
            f'runtime = "{row.runtime}" is locked for each torch that assay installs, and here the base brings it '
            '(torch = "base"); set runtime = "none"',
        )


def _compiles(draft: Draft, row: RowFields, context: Context) -> Iterator[Problem]:
    """Where flash-attn is surely compiled, its source and its compiler are pinned, and the compiler knows the archs."""
    wheel = row.flash_attn
    if wheel.source not in ("compile", "skip-cuda"):
        return  # `auto` may find a wheel first
    nvcc = None
    if wheel.source == "compile":
        try:
            nvcc = context.releases.compiler(wheel.nvcc).name
        except MatrixError:
            return  # another rule says so
    for key, message in pinned.cannot_compile(wheel.version, nvcc, wheel.archs):
        yield ("flash-attn", key), message


RULES: tuple[Rule, ...] = (_python, _apt, _toolkit, _runtime, _compiles)
