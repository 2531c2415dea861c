"""Rows that add things of their own: what the matrix takes, and every way in which it can be wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from assay import matrix
from assay.errors import ExitCode, MatrixError
from assay.matrix.row import Requirements

ROOT = Path(__file__).parents[2]
A = "a" * 64
GOOD = f"bottle==0.13.4 --hash=sha256:{A}\n"
ROW = '[[row]]\nid = "a"\nexpect = "certify"\n'  # the line after it is line 4
REJECT = '[[row]]\nid = "a"\nexpect = "reject"\n'
OWN = 'dockerfile = "own.dockerfile"\n'


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], matrix.Matrix]:
    """Load a matrix with files beside it: good requirements, a folder with one file, and a fragment that copies it."""
    (tmp_path / "requirements.txt").write_text(GOOD)
    (tmp_path / "app").mkdir()
    (tmp_path / "app/serve.py").touch()
    (tmp_path / "own.dockerfile").write_text("COPY own/serve.py /opt/\n")

    def load_text(text: str) -> matrix.Matrix:
        file = tmp_path / "matrix.toml"
        file.write_text(text, encoding="utf-8")
        return matrix.load(file, known_checks=["torch.import"])

    return load_text


@pytest.fixture
def problems(load: Callable[[str], matrix.Matrix], tmp_path: Path) -> Callable[[str], list[str]]:
    """The problems of a text, without the folder's name."""

    def problems_of(text: str) -> list[str]:
        with pytest.raises(MatrixError) as caught:
            load(text)
        assert caught.value.code is ExitCode.USAGE
        assert all("\n" not in line and len(line) < 400 for line in caught.value.problems)
        return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]

    return problems_of


@pytest.mark.parametrize("file", ["own.dockerfile", "app/serve.py", "app/new.py", "extra.toml"])
def test_a_row_knows_when_what_it_brings_changed(
    load: Callable[[str], matrix.Matrix], tmp_path: Path, file: str
) -> None:
    """Only names stand in the matrix: without this, publishing would take the certificate of other instructions."""
    (tmp_path / "extra.toml").write_text("a = 1\n")
    text = ROW + OWN + 'context = "app"\nfiles = { "/etc/extra.toml" = "extra.toml" }\n'
    before = load(text).rows[0].content
    assert before == load(text).rows[0].content
    with (tmp_path / file).open("a") as changed:
        changed.write("# more\n")
    assert load(text).rows[0].content not in (before, None)
    assert load(ROW).rows[0].content is None


def test_rows_take_theirs_from_the_defaults_and_may_give_them_back(load: Callable[[str], matrix.Matrix]) -> None:
    first, second = load(
        f"""
        [defaults]
        expect = "certify"
        requirements = "requirements.txt"
        {OWN}
        context = "app"
        [[row]]
        id = "a"
        [[row]]
        id = "plain"
        requirements = ""
        dockerfile = ""
        """
    ).rows
    assert first.requirements == Requirements(
        path="requirements.txt", sha256=hashlib.sha256(GOOD.encode()).hexdigest(), packages=(("bottle", "0.13.4"),)
    )
    assert (first.dockerfile, first.context, first.adds_its_own) == ("own.dockerfile", "app", True)
    assert (second.requirements, second.dockerfile, second.context) == (None, None, None)
    assert not second.adds_its_own


def test_they_may_vary_as_an_axis(load: Callable[[str], matrix.Matrix], tmp_path: Path) -> None:
    (tmp_path / "other.dockerfile").write_text("USER 1000\n")
    defaults = '[defaults]\nexpect = "certify"\ncontext = "app"\n'
    rows = load(f'{defaults}[axes]\ndockerfile = ["own.dockerfile", "other.dockerfile"]\n').rows
    assert [(row.id, row.dockerfile) for row in rows] == [
        (name, name) for name in ("own.dockerfile", "other.dockerfile")
    ]


@pytest.mark.parametrize("part", ["requirements", "own"])
def test_a_build_of_theirs_may_be_what_has_to_fail(load: Callable[[str], matrix.Matrix], part: str) -> None:
    text = REJECT + f'requirements = "requirements.txt"\n{OWN}context = "app"\n'
    (row,) = load(text + f"because = {{ check = 'build.{part}', matches = 'x' }}").rows
    assert row.because[0].check == f"build.{part}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ROW + 'requirements = "gone.txt"', "matrix.toml:4: row 'a': 'gone.txt' does not exist beside the matrix file"),
        (ROW + 'requirements = "../x"', "4: row 'a': '../x' must lie beside the matrix file"),
        (ROW + 'requirements = "app"', "4: row 'a': 'app' is no file"),
        (ROW + "requirements = ['x']", "4: row 'a': 'requirements' must be a string, but is an array"),
        ('[defaults]\nrequirements = "gone.txt"\n' + ROW, "2: defaults: 'gone.txt' does not exist"),
        (ROW + 'dockerfile = "gone"', "4: row 'a': 'gone' does not exist beside the matrix file"),
        (ROW + 'dockerfile = "/etc/passwd"', "4: row 'a': '/etc/passwd' must lie beside the matrix file"),
        (ROW + 'dockerfile = "app"', "4: row 'a': 'app' is no file"),
        (ROW + OWN + 'context = "gone"', "5: row 'a': 'gone' does not exist beside the matrix file"),
        (ROW + OWN + 'context = "own.dockerfile"', "5: row 'a': 'own.dockerfile' is no folder"),
        (ROW + 'context = "app"', "4: row 'a': `context` is what `dockerfile` copies from, and the row has none"),
        (
            ROW + OWN,
            "4: row 'a': own.dockerfile:1: COPY own/serve.py: the row names no folder to copy from; add context",
        ),
        (REJECT + "because = { check = 'build.own', matches = 'x' }", "the row has no dockerfile"),
        (REJECT + "because = { check = 'build.requirements', matches = 'x' }", "the row has no requirements"),
    ],
)
def test_one_problem_gives_one_clear_line(problems: Callable[[str], list[str]], text: str, problem: str) -> None:
    (line,) = problems(text)
    assert problem in line


def test_bad_requirements_are_told_line_by_line_where_they_stand(
    problems: Callable[[str], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "bad.txt").write_text(f"requests\n{GOOD}numpy==2.0.0 --hash=sha256:{A}\ntorch==2.4.0\n")
    lines = problems(ROW + 'requirements = "bad.txt"')
    assert [re.sub(r"(.*?bad\.txt:\d+): .*", r"\1", line) for line in lines] == [
        f"matrix.toml:4: row 'a': bad.txt:{number}" for number in (1, 3, 4)
    ]
    assert "numpy 2.0.0 conflicts with numpy 2.2.6 of the row's own lock docker/locks/torch-2.4.0-cu121/" in lines[1]


def test_a_conflict_is_with_the_locks_of_this_row(load: Callable[[str], matrix.Matrix], tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(f"diffusers==0.1 --hash=sha256:{A}\n")
    plain = ROW + 'requirements = "requirements.txt"\n'
    with pytest.raises(MatrixError, match=r"diffusers 0\.1 conflicts with diffusers 0\.36\.0"):
        load(plain)
    assert load(plain + 'runtime = "none"').rows[0].requirements
    assert load(plain + 'runtime = "none"\ntorch = "base"').rows[0].requirements


def test_requirements_without_a_package(problems: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# later\n")
    (line,) = problems(ROW + 'requirements = "requirements.txt"')
    assert "requirements.txt:1: it holds no package" in line


def test_a_context_holds_no_links(problems: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "app/passwd").symlink_to("/etc/passwd")
    (tmp_path / "app/self").symlink_to(".")
    (line,) = problems(ROW + OWN + 'context = "app"')
    assert "5: row 'a': app/passwd is a symbolic link (and 1 more like it): a `context` holds files" in line


@pytest.mark.parametrize(
    ("fragment", "problem"),
    [
        ("RUN true\nFROM scratch\n", "2: FROM would begin another image"),
        ("# syntax=docker/dockerfile:1\nRUN true\n", "1: `# syntax=` can only begin a whole Dockerfile"),
        ("RUN true\n# part: torch\nRUN false\n", "2: a comment `# part:` is how assay marks the parts"),
        ("RUN <<EOF\n# part: torch\nEOF\n", "2: a comment `# part:` is how assay marks the parts"),
        ("RNU true\n", "1: unknown instruction 'RNU'; perhaps you meant 'RUN'"),
        ("RUN true \\\n", "1: this instruction has no end"),
        ("RUN true\nRUN <<EOF\ntrue\n", "2: this instruction has no end"),
        ("RUN echo C:\\\\\n", "1: a line that ends in several backslashes means one thing to newer Docker Engines"),
        ("RUN cat << EOF\n", "1: `<<` with a blank behind it means one thing to newer Docker Engines"),
        ("# nothing\n", "1: it holds no instruction"),
        ("", "1: it holds no instruction"),
        ("COPY network /etc/x\n", "1: COPY network: files come from the row's `context`, as own/PATH"),
        ("COPY own/../network /etc/x\n", "1: COPY own/../network: files come from the row's `context`"),
        ("ARG X=network\nCOPY $X /etc/x\n", "2: COPY $X: files come from the row's `context`"),
        ("COPY . /etc/x\n", "1: COPY .: files come from the row's `context`"),
        ("COPY * /etc/x\n", "1: COPY *: files come from the row's `context`"),
        ('COPY ["own/serve.py", "locks", "/etc/x/"]\n', "1: COPY locks: files come from the row's `context`"),
        ("ADD --chown=1:1 own/serve.py \\\n  serve.py /etc/x/\n", "1: ADD serve.py: files come from the row's"),
        ("COPY own/serv.py /etc/x\n", "1: COPY own/serv.py: serv.py does not exist in the row's `context` (app)"),
        ('LABEL a=b "io.assay.row"="x"\n', "1: labels that begin with io.assay. are what assay says of an image"),
    ],
)
def test_what_cannot_end_a_composed_dockerfile(
    problems: Callable[[str], list[str]], tmp_path: Path, fragment: str, problem: str
) -> None:
    (tmp_path / "own.dockerfile").write_text(fragment)
    (line,) = problems(ROW + OWN + 'context = "app"')
    assert f"matrix.toml:4: row 'a': own.dockerfile:{problem}" in line


@pytest.mark.parametrize(
    "fragment",
    [
        'COPY own/serve.py own/*.py ./own /opt/\ncopy ["own/serve.py", "/a b/"]\n',
        "COPY --from=docker.io/library/busybox@sha256:0 /bin/sh /bin/sh2\n",
        "ADD https://host.invalid/x /x\nADD own /opt/own\n",
        "COPY <<EOF /etc/x\nFROM is a word here\nEOF\n",
        "ARG A=1\nUSER 1000\nWORKDIR /srv\nENTRYPOINT []\nHEALTHCHECK NONE\n# syntax is fine\nLABEL io.mine=1\n",
        "RUN --mount=type=bind,source=network,target=/run/network \\\n    # why\n\n    sh /run/network/run.sh true\n",
        "RUN bash -c 'cat <<<word; echo $((1<<N))'",
    ],
)
def test_what_can(load: Callable[[str], matrix.Matrix], tmp_path: Path, fragment: str) -> None:
    (tmp_path / "own.dockerfile").write_text(fragment)
    assert load(ROW + OWN + 'context = "app"').rows[0].dockerfile == "own.dockerfile"


def test_the_example() -> None:
    (row,) = matrix.load(ROOT / "examples/own-image/matrix.toml").rows
    assert row.requirements is not None
    assert dict(row.requirements.packages).keys() == {"bottle"}
    assert (row.dockerfile, row.context) == ("own.dockerfile", "app")
