"""The README tells the truth about what can be asked."""

from __future__ import annotations

import re
from pathlib import Path

from assay import checks
from assay.cli import COMMANDS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readme_lists_every_check_with_its_question():
    rows = dict(re.findall(r"^\| `([a-z0-9.-]+)` \| (.+?) \|$", README, flags=re.MULTILINE))
    assert {check.id: check.question for check in checks.registry().values()}.items() <= rows.items()


def test_every_command_that_the_readme_names_exists():
    named = set(re.findall(r"(?:`|^    )assay ([a-z]+)", README, flags=re.MULTILINE))
    assert named <= set(COMMANDS)


def test_every_command_is_in_the_readme():
    assert {name for name in COMMANDS if not re.search(rf"\bassay {name}\b|nox -s {name}\b", README)} == set()


def test_every_session_that_the_readme_names_exists():
    noxfile = (Path(__file__).parents[2] / "noxfile.py").read_text(encoding="utf-8")
    for session in set(re.findall(r"nox -s ([a-z-]+)", README)):
        assert re.search(rf"def {session.replace('-', '_')}\(", noxfile), session
