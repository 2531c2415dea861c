"""What the live view says, on a terminal and in a log."""

from __future__ import annotations

import io
import re
import time

from rich.console import Console

from assay import progress
from assay.progress import View, short_step


def plain(**options):
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    return View(["cu121", "cu120"], console, **options), console.file


def test_a_log_gets_a_line_whenever_a_row_changes_what_it_does():
    view, file = plain()
    view.phase("cu121", "build")
    view.detail("cu121", "[2/5] RUN uv pip install", 10, 100)
    view.detail("cu121", "[2/5] RUN uv pip install", 20, 100)
    view.verdict("cu121", "certified", "every check passed", outcome="as-expected")
    lines = file.getvalue().splitlines()
    assert len(lines) == 3, lines
    assert "certified" in lines[-1]


def test_a_row_that_stays_at_it_is_heard_of_in_a_log(monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", 0.05)
    view, file = plain()
    with view.live():
        view.phase("cu121", "build", "exporting layers")
        view.detail("cu121", "exporting layers", 2_000_000, 5_000_000_000)
        wait_for(lambda: re.search(r"exporting layers 2 MB of 5\.00 GB \.\.\. \d+ s of build", file.getvalue()))
        view.verdict("cu121", "rejected", "torch.import", outcome="as-expected")
    assert file.getvalue().splitlines()[-1].rstrip().endswith("s]")


def test_a_terminal_shows_every_row_with_its_state():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    view = View(["cu121", "cu120"], console)
    with view.live():
        view.phase("cu121", "checks", "torch.import")
        view.verdict("cu120", "rejected", "toolkit.matches-torch", outcome="as-expected", cached=True)
    text = console.file.getvalue()
    assert "torch.import" in text
    assert "(from its certificate)" in text


def test_a_rejection_that_is_expected_looks_good_and_a_surprise_says_so():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system="standard")
    view = View(["cu121", "cu120"], console)
    with view.live():
        view.verdict("cu121", "rejected", "torch.import", outcome="unexpected")
        view.verdict("cu120", "rejected", "toolkit.matches-torch", outcome="as-expected")
    text = console.file.getvalue()
    assert "\x1b[1;31mrejected" in text
    assert "\x1b[1;32mrejected" in text
    assert "not as expected: torch.import" in text
    assert "not as expected: toolkit" not in text


def wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_lines_of_a_step_stay_out_of_a_log_unless_they_count():
    view, file = plain()
    view.phase("cu121", "build")
    view.detail("cu121", "Collecting uv", announce=False)
    assert "Collecting" not in file.getvalue()


def test_a_long_step_is_shown_without_its_mounts():
    step = "[torch 1/1] RUN --mount=type=cache,id=uv,target=/c   --mount=type=bind,source=a,target=/b   sh run.sh   uv"
    assert short_step(step) == "[torch 1/1] RUN sh run.sh uv"
    assert len(short_step("x" * 500)) == 100
