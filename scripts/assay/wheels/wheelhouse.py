"""Choosing a wheel from folders, and the folder in which wheels are kept once they are had."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import files
from assay.errors import Cancelled, IngredientError
from assay.matrix.row import FlashAttn
from assay.releases import runs_on
from assay.wheels import wheel as wheel_file
from assay.wheels.extension import Kernel
from assay.wheels.wheel import Wheel

LOCK_POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a wheel must fit.

    python: tag of the interpreter, `cp311`. flash_attn: version, kernels and archs that the row asks for.
    torch: full version, `2.4.0+cu121`. cuda_major, cxx11_abi: of that torch; None when the base image brings torch and
        nobody has looked at it, and then they decide nothing. base, base_digest: that image, where it brings torch; the
        digest is None where nobody has looked which image has the name now.
    """

    python: str
    flash_attn: FlashAttn
    torch: str | None = None
    cuda_major: int | None = None
    cxx11_abi: bool | None = None
    base: str | None = None
    base_digest: str | None = None


def wanted_kernels(flash_attn: FlashAttn) -> frozenset[Kernel]:
    """Return the specialisations that a row asks for.

    Forward and split-KV forward, causal and not: `flash_attn_func` chooses the split-KV kernels by itself for small
    grids, so that a wheel without them fails at run time.
    """
    return frozenset(
        Kernel(direction, head_dim, dtype, causal)
        for direction in ("fwd", "fwd-split")
        for head_dim in flash_attn.head_dims
        for dtype in flash_attn.dtypes
        for causal in (False, True)
    )


def _wrong_version(wheel: Wheel, target: Target) -> str | None:
    if wheel.public_version == target.flash_attn.version:
        return None
    return f"is version {wheel.version}, not {target.flash_attn.version}"


def _wrong_python(wheel: Wheel, target: Target) -> str | None:
    if target.python in wheel.python:
        return None
    return f"is for {'.'.join(wheel.python)}, not {target.python}"


def _no_extension(wheel: Wheel, target: Target) -> str | None:
    return None if wheel.extension else "holds no compiled extension"


def _wrong_cuda(wheel: Wheel, target: Target) -> str | None:
    needs = wheel.extension.cuda_major if wheel.extension else None
    if needs is None or target.cuda_major is None or needs == target.cuda_major:
        return None
    return f"needs libcudart.so.{needs}, and {target.torch or 'the torch of the row'} brings CUDA {target.cuda_major}"


def _wrong_abi(wheel: Wheel, target: Target) -> str | None:
    needs = wheel.extension.cxx11_abi if wheel.extension else None
    if needs is None or target.cxx11_abi is None or needs == target.cxx11_abi:
        return None
    spelled = {True: "the C++11 ABI", False: "the pre-C++11 ABI"}
    return f"is built for {spelled[needs]}, and torch {target.torch} has {spelled[target.cxx11_abi]}"


def _wrong_torch(wheel: Wheel, target: Target) -> str | None:
    # The symbols cannot tell one torch release from the next with the same ABI, so only a wheel that says what it was
    # compiled against is judged by it: its record, or the `torch2.4` in a release wheel's local version.
    recorded = wheel.record.get("torch")
    if target.torch is None:
        return _wrong_base(wheel, target) if recorded is not None else None
    if recorded is not None:
        return None if recorded == target.torch else f"was compiled against torch {recorded}, not {target.torch}"
    _, named, rest = wheel.local_version.partition("torch")
    minor = rest.partition("cxx11")[0]
    if not named or target.torch.startswith(f"{minor}."):
        return None
    return f"was compiled against torch {minor}, not {target.torch}"


def _wrong_base(wheel: Wheel, target: Target) -> str | None:
    """Hold a record against a torch that the base brings: its name says nothing, only the image itself is that torch.

    A row that can have nothing but a wheel from a wheelhouse gets what was put there for it, whichever torch of assay's
    own, or state of the base, it was made for.
    """
    recorded, made_on, digest = (wheel.record.get(name) for name in ("torch", "base", "base_digest"))
    as_given = target.flash_attn.source == "wheelhouse"
    if recorded != "base":
        return None if as_given else f"was compiled against torch {recorded}, not against that of {target.base}"
    if made_on != target.base:
        return f"was compiled against the torch of {made_on}, not of {target.base}"
    if as_given or (digest is not None and digest == target.base_digest):
        return None
    if digest is None:
        return f"was compiled against the torch of {target.base}, but its record does not say which image that was"
    now = (
        f"which is {target.base_digest} now" if target.base_digest else "and nobody knows yet whether it still is that"
    )
    return f"was compiled against the torch of {target.base} when that was {digest}, {now}"


def _wrong_archs(wheel: Wheel, target: Target) -> str | None:
    """Machine code runs on its own major architecture, from its own minor on: 8.0 code on 8.6, not on 9.0."""
    missing = [asked for asked in target.flash_attn.archs if not any(runs_on(held, asked) for held in wheel.archs)]
    if not missing:
        return None
    inside = ", ".join(f"sm_{arch}" for arch in wheel.archs) or "none"
    return f"holds no machine code for {', '.join(f'sm_{arch}' for arch in missing)} (it holds {inside})"


def _missing_kernels(wheel: Wheel, target: Target) -> str | None:
    held = wheel.extension.kernels if wheel.extension else frozenset()
    missing = sorted(wanted_kernels(target.flash_attn) - held)
    if not missing or not held:  # no name of a kernel is readable: then nothing is known, and the checks decide
        return None
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"lacks the kernel {missing[0]}{more}"


RULES: tuple[Callable[[Wheel, Target], str | None], ...] = (
    _wrong_version,
    _wrong_python,
    _no_extension,
    _wrong_cuda,
    _wrong_abi,
    _wrong_torch,
    _wrong_archs,
    _missing_kernels,
)


def misfits(wheel: Wheel, target: Target) -> tuple[str, ...]:
    """Return every reason for which a wheel does not fit a row; none means that it fits. Pure."""
    return tuple(reason for rule in RULES if (reason := rule(wheel, target)) is not None)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The wheel that fits, if any, and why each other one was passed over, one line each."""

    wheel: Wheel | None
    passed_over: tuple[str, ...]


def choose(folders: Sequence[Path], target: Target, key: str | None = None) -> Choice:
    """Choose the first wheel that fits, from the folders in their order, by name within a folder.

    key: of the row's recipe: a wheel that was made by just that, as its record says, goes before all others. Where two
    rows bring their own torch, nothing in the wheels themselves tells which is whose.
    A damaged or unreadable wheel is passed over like one that does not fit. Raises IngredientError for a folder that is
    not there: whoever names a wheelhouse wants it used.
    """
    passed_over: list[str] = []
    first: Wheel | None = None
    for folder in folders:
        if not folder.is_dir():
            raise IngredientError(f"{folder}: no such wheelhouse folder; make it, or name another with --wheelhouse")
        for path in sorted(folder.glob("flash_attn-*.whl")):
            try:
                wheel = wheel_file.read(path, source="wheelhouse")
            except IngredientError as error:
                passed_over.append(str(error))
                continue
            reasons = misfits(wheel, target)
            if reasons:
                passed_over.append(f"{path.name}: {'; '.join(reasons)}")
            elif key is None or wheel.record.get("key") == key:
                return Choice(wheel=wheel, passed_over=tuple(passed_over))
            else:
                first = first or wheel
    return Choice(wheel=first, passed_over=tuple(passed_over))


class Store:
    """Wheels kept by the hash of what they were made from: one folder a wheel, whole or not there.

    root/KEY/flash_attn-....whl and, beside it, flash_attn-....whl.json. root/KEY.lock is held by whoever makes it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str, *, source: str) -> Wheel | None:
        """Return the wheel of a key, or None. A damaged one is removed, so that it is made again."""
        folder = self.root / key
        path = next(iter(sorted(folder.glob("*.whl"))), None)
        if path is None:
            return None
        try:
            return wheel_file.read(path, source=source)
        except FileNotFoundError:  # another run found it damaged at the same moment
            return None
        except IngredientError:
            shutil.rmtree(folder, ignore_errors=True)
            return None

    def add(self, key: str, path: Path, *, source: str, record: Mapping[str, Any]) -> Wheel:
        """Keep a wheel with its record, which gains the sha256 of the wheel and of its files; return the kept one.

        Raises IngredientError when the file is no readable wheel.
        """
        wheel = wheel_file.read(path, source=source)
        self.root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=self.root, prefix=f".{key}."))
        try:
            shutil.copyfile(path, partial / path.name)
            files.write_json(
                wheel_file.record_path(partial / path.name),
                {**record, "key": key, "filename": path.name, "sha256": wheel.sha256, "files": dict(wheel.files)},
            )
            partial.chmod(0o755)
            shutil.rmtree(self.root / key, ignore_errors=True)  # what `get` found to be no wheel
            partial.rename(self.root / key)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return wheel_file.read(self.root / key / path.name, source=source)

    @contextlib.contextmanager
    def making(self, key: str, *, on_wait: Callable[[], None], cancel: threading.Event | None = None) -> Iterator[None]:
        """Hold a key while its wheel is made; whoever comes second waits here and finds the wheel made.

        on_wait is called once when there is somebody to wait for. The kernel drops the lock when the process ends.
        Raises Cancelled when `cancel` is set while waiting.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{key}.lock").open("a", encoding="ascii") as file:
            waiting = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waiting:
                        on_wait()
                        waiting = True
                    if cancel is not None and cancel.wait(LOCK_POLL_SECONDS):
                        raise Cancelled(f"cancelled while another run made the wheel {key[:12]}") from None
                    if cancel is None:
                        time.sleep(LOCK_POLL_SECONDS)
            yield
