"""The line that tells why a build step failed, from the real output of installers."""

from __future__ import annotations

import pytest

from assay.causes import cause
from assay.errors import BuildFailed
from assay.matrix.row import Row
from assay.row_record import build_finding
from assay.verdict import judge

# apt 2.6 behind a proxy that is down.
APT = """\
Err:1 http://packages.invalid/debian bookworm InRelease
  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)
W: Some index files failed to download. They have been ignored, or old ones used instead.
E: Unable to locate package python3.10-venv
executor failed running [/bin/sh -c apt-get update]: exit code: 100"""
# uv 0.8 without a route to its index.
UV = """\
error: Failed to fetch: `https://packages.invalid/simple/torch/`
  Caused by: error sending request for url (https://packages.invalid/simple/torch/)
  Caused by: dns error: failed to lookup address information: Temporary failure in name resolution"""
COMPILER = """\
error: no suitable compiler
error: command '/usr/bin/g++' failed with exit code 1
process "/bin/sh -c python3 build.py" did not complete successfully: exit code: 1"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            APT,
            "Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused); "
            "in the end: E: Unable to locate package python3.10-venv",
        ),
        (UV, "Caused by: dns error: failed to lookup address information: Temporary failure in name resolution"),
        (COMPILER, "error: command '/usr/bin/g++' failed with exit code 1"),
        ("", ""),
    ],
)
def test_the_cause_is_named(log: str, line: str) -> None:
    assert cause(log.splitlines()) == line


def test_a_row_that_an_index_kept_from_being_built_says_so() -> None:
    step = "[python 1/1] RUN " + "sh /run/network/run.sh apt-get update && " * 10
    failure = build_finding(BuildFailed(part="python", step=step, log=APT.splitlines()), 1.0)
    judged = judge(Row(id="cu121", expect="certify"), [failure], ["torch.import"])
    assert judged.verdict == "inconclusive"
    assert "build.python: Could not connect to 127.0.0.1:9" in judged.why
