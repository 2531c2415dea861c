"""When a process counts as ended: an engine's files and sockets are free only when its last thread is."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from assay.engine import leftovers

# The first thread ends and the process becomes "Z" in /proc/PID/stat, while another thread keeps its files open: what
# the engine looks like for a moment after it was killed.
FIRST_THREAD_ENDS = """
import ctypes, platform, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
exit_of_one_thread = {"x86_64": 60, "aarch64": 93}[platform.machine()]
ctypes.CDLL(None).syscall(exit_of_one_thread, 0)
"""


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_a_process_whose_first_thread_ended_has_not_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            give_up = time.monotonic() + 10
            while _state(process.pid) != "Z":
                assert time.monotonic() < give_up
                time.sleep(0.01)
            assert not leftovers.wait_for_end(process.pid, 0.2)
        finally:
            process.kill()
        assert leftovers.wait_for_end(process.pid, 10)  # though it is a zombie until it is asked how it ended
        assert _state(process.pid) == "Z"
