"""The runner, with real processes: what becomes of checks that crash, hang, lie or litter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from checks_package import FOLDER, family

from assay.engine import leftovers

CORE = ("__init__.py", "framework.py", "families.py", "order.py", "processes.py", "runner.py", "run.py", "subject.py")
HEADER = """\
import os, signal, subprocess, sys, time
from . import subject
from .framework import Answer, check, passed, failed
"""
TOKEN = "0123456789abcdef"


@pytest.fixture
def ask(tmp_path):
    """Return a function that runs the real runner on checks of our own making."""
    checks = tmp_path / "checks"
    checks.mkdir()
    for name in CORE:
        shutil.copy(FOLDER / name, checks / name)
    expect = tmp_path / "expect.json"

    def run(source: str, *options: str, level: str = "image", **others: str):
        (checks / "toolkit.py").write_text(HEADER + source)
        for name, text in others.items():
            (checks / f"{name}.py").write_text(text)
        expect.write_text(json.dumps({"row": "r", "level": level}))
        done = subprocess.run(
            [sys.executable, str(checks / "run.py"), "--expect", str(expect), *options],
            env={**os.environ, "ASSAY_TOKEN": TOKEN, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines = done.stdout.splitlines()
        assert all(line.startswith(f"{TOKEN} ") for line in lines), done.stdout
        events = [json.loads(line.partition(" ")[2]) for line in lines]
        findings = {event["finding"]["check"]: event["finding"] for event in events if "finding" in event}
        return findings, events, done

    return run


def test_one_crash_hides_no_other_check(ask):
    findings, events, _ = ask("""
@check("a.crashes", "?")
def crashes(expect):
    os.kill(os.getpid(), signal.SIGSEGV)

@check("a.raises", "?")
def raises(expect):
    raise RuntimeError("no such luck")

@check("a.leaves", "?")
def leaves(expect):
    sys.exit(0)

@check("a.vanishes", "?")
def vanishes(expect):
    os._exit(0)

@check("a.answers-nothing", "?")
def nothing(expect):
    return None

@check("a.passes", "?")
def passes(expect):
    return passed("two", "two", seen=2)
""")
    assert {check: finding["status"] for check, finding in findings.items()} == {
        "a.crashes": "error",
        "a.raises": "error",
        "a.leaves": "error",
        "a.vanishes": "error",
        "a.answers-nothing": "error",
        "a.passes": "passed",
    }
    assert "SIGSEGV" in findings["a.crashes"]["measured"]
    assert "Segmentation fault" in findings["a.crashes"]["evidence"]  # faulthandler's stack
    assert "no such luck" in findings["a.raises"]["evidence"]
    assert "without a valid answer" in findings["a.vanishes"]["measured"]
    assert findings["a.passes"]["data"] == {"seen": 2}
    assert events[-1] == {"finished": 6}


def test_a_hang_is_killed_with_its_children_and_shows_where_it_hung(ask, tmp_path):
    started = time.monotonic()
    findings, _, _ = ask(f"""
@check("a.hangs", "?", timeout=5.0)
def hangs(expect):
    child = subprocess.Popen(["sleep", "600"])
    open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
    where_it_hangs()

def where_it_hangs():
    time.sleep(600)
""")
    assert time.monotonic() - started < 60
    assert findings["a.hangs"]["status"] == "error"
    assert findings["a.hangs"]["measured"] == "no answer within 5 s"
    assert "where_it_hangs" in findings["a.hangs"]["evidence"]
    child = int((tmp_path / "pid").read_text())
    assert leftovers.wait_for_end(child, 5)


def test_noise_is_no_answer_and_the_token_stays_secret(ask):
    findings, _, _ = ask("""
@check("a.noisy", "?")
def noisy(expect):
    print('{"finding": {"check": "a.other", "status": "passed"}}', flush=True)
    subprocess.run(["echo", "noise of a child"])
    return passed("quiet", os.environ.get("ASSAY_TOKEN", "no token"))
""")
    assert list(findings) == ["a.noisy"]
    assert findings["a.noisy"]["measured"] == "no token"


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) takes the capabilities away")
def test_code_under_test_cannot_read_the_token_from_the_runners_proc(ask):
    source = """
@check("a.spy", "?")
def spy(expect):
    import ctypes
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    try:
        found = open(f"/proc/{os.getppid()}/environ").read()
    except PermissionError:
        found = "not mine to read"
    return passed("the token", found, dumpable=dumpable)
"""
    _, _, done = ask(source)
    # As in the host's containers: no capabilities, which would open every /proc to root.
    bare = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", *done.args]
    told = subprocess.run(bare, env={**os.environ, "ASSAY_TOKEN": TOKEN}, capture_output=True, text=True, timeout=60)
    finding = json.loads(told.stdout.splitlines()[1].partition(" ")[2])["finding"]
    assert finding["measured"] == "not mine to read"
    assert finding["data"]["dumpable"] == 1  # the check's own process is as any other program


def test_needs_decide_between_blocked_and_not_run(ask):
    findings, _, _ = ask("""
@check("b.blocked", "?", needs=("a.fails",))
def blocked(expect):
    return passed("", "")

@check("b.blocked-too", "?", needs=("b.blocked",))
def blocked_too(expect):
    return passed("", "")

@check("b.unknown", "?", needs=("a.breaks",))
def unknown(expect):
    return passed("", "")

@check("b.goes-on", "?", needs=("a.other-row",))
def goes_on(expect):
    return passed("", "")

@check("a.fails", "?")
def fails(expect):
    return failed("good", "bad")

@check("a.breaks", "?")
def breaks(expect):
    1 / 0

@check("a.other-row", "?", applies=lambda expect: expect["row"] == "other")
def other(expect):
    return failed("", "")

@check("c.gpu", "?", level="gpu")
def gpu(expect):
    return failed("", "")
""")
    assert {check: finding["status"] for check, finding in findings.items()} == {
        "a.fails": "failed",
        "a.breaks": "error",
        "b.blocked": "blocked",
        "b.blocked-too": "blocked",
        "b.unknown": "not-run",
        "b.goes-on": "passed",
    }
    assert "a.fails" in findings["b.blocked"]["measured"]
    assert "bad" in findings["b.blocked-too"]["measured"]


def test_a_broken_family_is_told_and_the_others_go_on(ask):
    findings, events, _ = ask(
        '@check("a.passes", "?")\ndef passes(expect):\n    return passed("", "")\n',
        packages="import no_such_module_anywhere\n",
    )
    broken = [event["broken"] for event in events if "broken" in event]
    assert [entry["family"] for entry in broken] == ["packages"]
    assert "no_such_module_anywhere" in broken[0]["evidence"]
    assert findings["a.passes"]["status"] == "passed"


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "failed", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "error", "SIGKILL"),
        ("raise ImportError('libx.so: undefined symbol: y')", "failed", "libx.so: undefined symbol: y"),
        ("import time; time.sleep(60)", "error", "still running"),
        ("pass", "error", "reported nothing"),
        ("report({'sum': 2})", "passed", "2"),
        (
            "raise OSError(28, 'No space left on device', '/tmp/x')",
            "error",
            "No space left on device: '/tmp/x'; that is",
        ),
        ("raise OSError(5, 'Input/output error', '/x/libtorch.so')", "error", "Input/output error"),
        ('raise RuntimeError("can\'t start new thread")', "error", "give it room"),
        ("raise MemoryError", "error", "MemoryError"),
        ("raise OSError(30, 'Read-only file system', '/app/cache')", "error", "'/app/cache'; while it is checked"),
        ("raise ImportError('l.so: cannot allocate memory in static TLS block')", "failed", "in static TLS block"),
        (
            "print('x: Resource temporarily unavailable'); raise ImportError('undefined symbol: y')",
            "failed",
            "symbol: y",
        ),
    ],
)
def test_a_subject_that_crashes_has_failed_unless_the_crash_says_nothing_of_it(ask, code, status, told):
    findings, _, _ = ask(f"""
@check("a.subject", "?")
def asks(expect):
    facts = subject.attempt("it works", {code!r}, timeout=3.0)
    return facts if isinstance(facts, Answer) else passed("it works", str(facts["sum"]))
""")
    assert findings["a.subject"]["status"] == status
    assert told in findings["a.subject"]["measured"]


def test_checks_that_use_the_gpu_take_turns(ask, tmp_path):
    """Only they wait, only at level gpu, and only while another process has the turn."""
    turn = tmp_path / "gpu-turn"
    turn.touch()
    runner = tmp_path / "checks/runner.py"
    waits = tmp_path / "waits"
    told = f"on_wait()\n            open({str(waits)!r}, 'w').close()\n"
    code = runner.read_text().replace("/opt/assay/gpu-turn", str(turn))
    assert "on_wait()\n" in code
    runner.write_text(code.replace("on_wait()\n", told))
    source = """
@check("a.plain", "?")
def plain(expect):
    return passed("", str(time.time()))

@check("a.gpu", "?", level="gpu")
def gpu(expect):
    return passed("", str(time.time()))

@check("a.draws", "?", needs_at_gpu=("a.gpu",))
def draws(expect):
    return passed("", str(time.time()))
"""
    hold = (
        "import fcntl, os, sys, time\nfile = open(sys.argv[1], 'rb')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n"
        "print(time.time(), flush=True)"
    )
    for level, waiting in (("gpu", ["a.gpu"]), ("image", [])):
        waits.unlink(missing_ok=True)  # comes when the runner waits, or has nothing to wait for and is done
        command = [sys.executable, "-c", hold, str(turn), str(waits)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout.readline() == "held\n"
            findings, events, _ = ask(source, level=level)
            waits.touch()
            released = float(holder.stdout.readline())
        assert [event["waiting"] for event in events if "waiting" in event] == waiting
        assert float(findings["a.plain"]["measured"]) < released
        assert (float(findings["a.draws"]["measured"]) > released) is (level == "gpu")
        assert all(finding["status"] == "passed" for finding in findings.values())


def test_only_takes_the_needs_along_and_refuses_unknown_ids(ask):
    source = """
@check("a.first", "?")
def first(expect):
    return passed("", "")

@check("a.second", "?", needs=("a.first",))
def second(expect):
    return passed("", "")

@check("a.third", "?")
def third(expect):
    return passed("", "")
"""
    findings, _, _ = ask(source, "--only", "a.second")
    assert list(findings) == ["a.first", "a.second"]
    _, _, done = ask(source, "--only", "a.fourth")
    assert done.returncode == 1
    assert "a.fourth" in done.stderr


def test_the_folder_of_the_checks_hides_no_library(ask):
    findings, _, _ = ask(
        """
@check("a.path", "?")
def path(expect):
    import packages_that_is_not_there
""",
        packages="",
    )
    assert "No module named 'packages_that_is_not_there'" in findings["a.path"]["measured"]
    findings, _, _ = ask("""
@check("a.path", "?")
def path(expect):
    import runner
""")
    assert "No module named 'runner'" in findings["a.path"]["measured"]


def test_circles_and_unknown_needs_are_found():
    order, framework = family("order"), family("framework")

    def check(name, *needs, level="image"):
        return framework.Check(name, "?", lambda expect: None, needs, level)

    circle = {name: check(name, need) for name, need in (("a.a", "a.b"), ("a.b", "a.c"), ("a.c", "a.a"))}
    assert order.problems(circle) == ["checks need each other in a circle: a.a -> a.b -> a.c -> a.a"]
    assert order.problems({"a.a": check("a.a", "a.z")}) == ["check 'a.a' needs 'a.z', which no family defines"]
    levels = {"a.a": check("a.a", "a.b"), "a.b": check("a.b", level="gpu")}
    assert order.problems(levels) == ["check 'a.a' of level 'image' needs 'a.b' of level 'gpu'"]


def test_an_image_whose_python_drops_docstrings_and_assertions_can_answer(ask, monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    findings, _, _ = ask("""
@check("a.optimised", "?")
def optimised(expect):
    return passed("2", str(sys.flags.optimize))
""")
    assert (findings["a.optimised"]["status"], findings["a.optimised"]["measured"]) == ("passed", "2")


@pytest.mark.parametrize(
    ("variables", "base"),
    [
        ({"ASSAY_HOME": "/app"}, "/app/.local"),
        ({"ASSAY_HOME": "/app", "PYTHONUSERBASE": "/opt/own"}, "/opt/own"),
    ],
)
def test_packages_of_the_images_user_lie_below_the_home_that_the_image_sets(ask, monkeypatch, variables, base):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    findings, _, _ = ask("""
@check("a.base", "?")
def base(expect):
    return passed("", os.environ["PYTHONUSERBASE"], told=os.environ.get("ASSAY_HOME"))
""")
    assert (findings["a.base"]["measured"], findings["a.base"]["data"]["told"]) == (base, None)


def test_where_the_image_sets_no_home_its_users_own_counts(monkeypatch):
    runner = family("runner")
    monkeypatch.setattr(runner.pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir=f"/home/of-{uid}"))
    monkeypatch.delenv("PYTHONUSERBASE", raising=False)
    assert runner.user_base("") == {"PYTHONUSERBASE": f"/home/of-{os.getuid()}/.local"}


def test_a_user_without_a_name_has_the_home_that_the_engine_gives(monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    runner = family("runner")
    monkeypatch.setattr(runner.pwd, "getpwuid", nobody)
    monkeypatch.delenv("PYTHONUSERBASE", raising=False)
    assert runner.user_base("") == {"PYTHONUSERBASE": "/.local"}
