"""Ask an image every question of its row, each in a process of its own, and stream the answers.

One line of JSON per event on stdout, each prefixed by the token that the host chose for this run, so that nothing
that a library prints can be taken for an answer:

    TOKEN {"waiting": "bf16.tensor-cores"}
    TOKEN {"started": "torch.import"}
    TOKEN {"finding": {"check": "torch.import", "status": "passed", ...}}
    TOKEN {"broken": {"family": "sample", "evidence": "Traceback ..."}}
    TOKEN {"finished": 17}

A check that crashes, hangs or answers nonsense is an `error` of that check alone. Where the crash IS the answer (a
library that takes the interpreter down when imported), the check itself runs its subject in one more process and
answers `failed`: see `torch_build.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import fcntl
import json
import os
import pwd
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import families, order, processes
from .framework import REGISTRY, Answer, Check, Expect

EXPECT = "/opt/assay/expect.json"
GPU_TURN = Path("/opt/assay/gpu-turn")
PR_SET_DUMPABLE = 4  # <linux/prctl.h>
ASKED = ("passed", "failed", "not-run", "error")


def main(script: str, arguments: Sequence[str]) -> int:
    """Run all checks of the row, or, in the child process of one check, that one."""
    # Not from __doc__: an image whose PYTHONOPTIMIZE is 2 has none, and its checks run as its user's programs do.
    parser = argparse.ArgumentParser(prog="run.py", description="Ask an image every question of its row.")
    parser.add_argument("--expect", default=EXPECT, help="what the host says that the image should hold")
    parser.add_argument("--only", action="append", metavar="ID", help="ask this check and its needs; repeatable")
    parser.add_argument("--one", metavar="ID", help=argparse.SUPPRESS)
    parser.add_argument("--killed-at", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--answer-fd", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    expect = Expect.read(options.expect)
    if options.one:
        answer_one(REGISTRY[options.one], expect, options.answer_fd, options.killed_at)
    token = os.environ.pop("ASSAY_TOKEN", "")  # no child may know it
    home = os.environ.pop("ASSAY_HOME", "")
    hide_from_children()

    def tell(**event: Any) -> None:
        print(f"{token} {json.dumps(event)}".strip(), flush=True)

    for family, evidence in families.BROKEN.items():
        tell(broken={"family": family, "evidence": processes.clip(evidence)})
    answers: dict[str, Answer] = {}
    for check in wanted(expect, options.only):
        answer, seconds = order.without_asking(check, answers), 0.0
        if answer is None:
            with take_turn(check, expect, lambda check=check: tell(waiting=check.id)):
                tell(started=check.id)
                answer, seconds = ask(script, check, options.expect, home)
        answers[check.id] = answer
        tell(finding=as_finding(check, answer, seconds))
    tell(finished=len(answers))
    return 0


def wanted(expect: Expect, only: Sequence[str] | None) -> list[Check]:
    """Return the checks to ask, each after its needs: all of the row, or those named and what they need."""
    checks = order.selected(REGISTRY, expect, expect["level"])
    if not only:
        return checks
    by_id = {check.id: check for check in checks}
    unknown = [name for name in only if name not in by_id]
    if unknown:
        raise SystemExit(f"no such check in this row: {', '.join(unknown)}; there are: {', '.join(by_id)}")
    keep: set[str] = set()
    rest = list(only)
    while rest:
        name = rest.pop()
        if name in by_id and name not in keep:
            keep.add(name)
            rest.extend(by_id[name].every_need)
    return [check for check in checks if check.id in keep]


@contextlib.contextmanager
def take_turn(check: Check, expect: Expect, on_wait: Callable[[], None]) -> Iterator[None]:
    """Let a check that uses the GPU have it for itself: what it measures includes time and memory.

    The host mounts one file into every container that gets the same GPU, and who holds its lock has the turn. The
    kernel takes it back when a container ends, however it ends. Where there is no such file, nobody else is expected.
    """
    uses_gpu = check.level == "gpu" or (expect["level"] == "gpu" and check.needs_at_gpu)
    if not uses_gpu or not GPU_TURN.exists():
        yield
        return
    with GPU_TURN.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ask(script: str, check: Check, expect_path: str, home: str) -> tuple[Answer, float]:
    """Run one check in a process of its own; return its answer and the seconds that it took. home: see `user_base`."""
    scratch = tempfile.mkdtemp(prefix="check-")
    started = time.monotonic()
    try:
        ended = processes.run(
            [
                *(sys.executable, "-X", "faulthandler", script, "--expect", expect_path, "--one", check.id),
                *("--killed-at", str(started + check.timeout)),
            ],
            timeout=check.timeout,
            environment={**os.environ, **user_base(home), "TMPDIR": scratch, "PYTHONDONTWRITEBYTECODE": "1"},
            answer_option="--answer-fd",
        )
        answer = read_answer(check, ended)
    except OSError as error:
        answer = Answer("error", measured=f"cannot start {sys.executable}", evidence=str(error))
    finally:
        end_strays()
        shutil.rmtree(scratch, ignore_errors=True)
    return answer, time.monotonic() - started


def read_answer(check: Check, ended: processes.Ended) -> Answer:
    """Turn what a check's process left behind into its answer; all but a clean end with a valid one is `error`."""
    printed = processes.clip(ended.output.strip())
    if ended.timed_out:
        return Answer("error", measured=f"no answer within {check.timeout:.0f} s", evidence=printed)
    if ended.exit_code != 0:
        return Answer("error", measured=f"the check itself broke: {ended.how}", evidence=printed or ended.how)
    try:
        answer = Answer(**json.loads(ended.answer))
    except (ValueError, TypeError) as error:
        return Answer("error", measured="the check ended without a valid answer", evidence=f"{error}\n{printed}")
    if answer.status not in ASKED:
        return Answer("error", measured=f"the check answered {answer.status!r}, not one of {', '.join(ASKED)}")
    return answer


def answer_one(check: Check, expect: Expect, descriptor: int, killed_at: float) -> None:
    """In the child process: run the check, write its answer to `descriptor`, and leave without running destructors.

    killed_at: the monotonic clock's seconds, which every process of a machine shares, at which the parent ends it.
    A library's exit handlers may crash after the question is answered; the answer stands all the same.
    """
    os.set_inheritable(descriptor, False)
    # A hang shows where it hangs, shortly before the parent kills it.
    spare = max(1.0, check.timeout * 0.05)
    faulthandler.dump_traceback_later(max(0.1, killed_at - spare - time.monotonic()))
    try:
        answer = check.function(expect)
        if not isinstance(answer, Answer):
            raise TypeError(f"check {check.id} returned {answer!r} instead of an Answer")  # noqa: TRY301
        text = json.dumps(vars(answer))
    except BaseException as error:  # SystemExit of a library included: nothing may pass for an answer
        line = f"the check itself broke: {type(error).__name__}: {error}"
        text = json.dumps(vars(Answer("error", measured=line, evidence=traceback.format_exc())))
    with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:
        pipe.write(text)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def hide_from_children() -> None:
    """Keep this process's /proc from code under test: there stand the token, as it came, and the host's end of stdout.

    To the kernel it is then a process that must not be dumped, whose /proc belongs to root alone with CAP_SYS_PTRACE,
    which no container of the host has. A Python without ctypes goes without: it cannot hold torch either.
    """
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        return


def user_base(home: str) -> dict[str, str]:
    """Return where packages of the image's user lie (`pip install --user`), which its Python prefers to others.

    HOME is a folder that can be written here; a user's own is what counts for what is imported. home: the HOME that
    the image itself sets, empty where it sets none: then it is what the engine gives a user who runs the image.
    """
    if "PYTHONUSERBASE" in os.environ:
        return {}
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:  # a user without a name, to whom the engine gives the root folder
            home = "/"
    return {"PYTHONUSERBASE": os.path.join(home, ".local")}  # noqa: PTH118 - as Python's `site` joins them


def end_strays() -> None:
    """As the container's first process: kill and reap whatever a check left running outside its process group."""
    if os.getpid() != 1:
        return
    try:
        os.kill(-1, signal.SIGKILL)
        while os.waitpid(-1, 0)[0]:
            pass
    except (ProcessLookupError, ChildProcessError):
        return


def as_finding(check: Check, answer: Answer, seconds: float) -> dict[str, Any]:
    """Return the answer as the host's `Finding.from_json` reads it."""
    return {
        "check": check.id,
        "status": answer.status,
        "required": answer.required,
        "measured": answer.measured,
        "evidence": processes.clip(answer.evidence),
        "seconds": round(seconds, 3),
        "data": answer.data,
    }
