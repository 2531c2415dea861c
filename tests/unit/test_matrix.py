"""Matrix files: the ones that are shipped, what a file can say, and every way in which it can be wrong."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import matrix
from assay.errors import ExitCode, MatrixError, UsageError
from assay.findings import Level
from assay.matrix.row import FlashAttn, Reason, Row

ROOT = Path(__file__).parents[2]
CHECKS = ("torch.import", "libraries.resolved", "toolkit.matches-torch", "flash-attn.import", "sample.parity")


@pytest.fixture
def load(tmp_path):
    """Load a matrix from its text."""

    def load_text(text: str) -> matrix.Matrix:
        file = tmp_path / "matrix.toml"
        file.write_text(text, encoding="utf-8")
        return matrix.load(file, known_checks=CHECKS)

    return load_text


@pytest.fixture
def problems(load):
    """The problems of a text, without the folder's name."""

    def problems_of(text: str) -> list[str]:
        with pytest.raises(MatrixError) as caught:
            load(text)
        assert caught.value.code is ExitCode.USAGE
        lines = [re.sub(r"^.*?matrix\.toml", "matrix.toml", problem) for problem in caught.value.problems]
        assert all("\n" not in line and len(line) < 300 for line in lines)
        return lines

    return problems_of


# --- the files that are shipped ---


def test_default_rows():
    rows = matrix.load(ROOT / "matrix.toml").rows
    said = {
        row.id: (row.cuda, row.library_path, row.flash_attn.source, row.flash_attn.nvcc, row.expect) for row in rows
    }
    assert said == {
        "cu121": ("12.1.1", "none", "auto", "12.4", "certify"),
        "cu120-on-library-path": ("12.0.1", "toolkit", "auto", "12.4", "reject"),
        "cu120": ("12.0.1", "none", "auto", "12.4", "reject"),
        "cu122": ("12.2.0", "none", "auto", "12.4", "reject"),
        "cu118-compile": ("12.1.1", "none", "compile", "11.8", "reject"),
        "no-kernels": ("12.1.1", "none", "skip-cuda", "12.4", "reject"),
    }
    assert {row.torch for row in rows} == {"2.4.0+cu121"}
    assert {row.id: [reason.check for reason in row.because] for row in rows if row.because} == {
        "cu120-on-library-path": ["torch.import", "libraries.resolved"],
        "cu120": ["toolkit.matches-torch"],
        "cu122": ["toolkit.matches-torch"],
        "cu118-compile": ["build.flash-attn"],
        "no-kernels": ["flash-attn.import"],
    }


@pytest.mark.parametrize(
    ("row", "evidence"),
    [
        # As the tools print it (measured).
        ("cu120-on-library-path", "undefined symbol: __nvJitLinkAddData_12_1, version libnvJitLink.so.12"),
        ("cu118-compile", "RuntimeError: \nThe detected CUDA version (11.8) mismatches the version that was used to"),
        ("no-kernels", "ModuleNotFoundError: No module named 'flash_attn_2_cuda'"),
    ],
)
def test_default_reasons_match_the_real_evidence(row, evidence):
    (selected,) = matrix.load(ROOT / "matrix.toml").select([row])
    assert all(re.search(reason.matches, evidence) for reason in selected.because)


def test_rows_on_nvidias_images():
    rows = matrix.load(ROOT / "examples" / "matrix.nvidia-cuda.toml").rows
    assert [(row.base.removeprefix("nvidia/cuda:"), row.cuda) for row in rows] == [
        ("12.1.1-devel-ubuntu22.04", "12.1.1"),
        ("12.0.1-devel-ubuntu22.04", "12.0.1"),
        ("12.2.0-devel-ubuntu22.04", "12.2.0"),
    ]
    assert {(row.toolkit, row.python) for row in rows} == {("base", "3.10")}


# --- what a file can say ---


def test_defaults_lie_below_rows_and_flash_attn_is_laid_key_by_key(load, tmp_path):
    (tmp_path / "x.so").touch()
    loaded = load(
        """
        [defaults]
        base = "ubuntu:24.04"
        python = "3.12"
        gpus = ["A100", "H100"]
        flash-attn = { version = "2.8.2", source = "none", head-dims = [96] }
        env = { A = "1", B = "2" }
        [publish]
        level = "image"
        prefix = "v2"
        [[row]]
        id = "a"
        what = "all of it"
        expect = "reject"
        because = { check = "torch.import", matches = "x+" }
        gpus = ["A10"]
        flash-attn = { source = "auto", nvcc = "12.4.131", archs = ["80", "90"] }
        env = { B = "3" }
        files = { "/opt/x.so" = "x.so" }
        tags = ["t", "t"]
        required-level = "gpu"
        [[row]]
        id = "b"
        expect = "certify"
        """
    )
    first, second = loaded.rows
    assert first.flash_attn == FlashAttn(
        version="2.8.2", source="auto", nvcc="12.4", head_dims=(96,), archs=("80", "90")
    )
    assert first.because == (Reason(check="torch.import", matches="x+"),)
    assert (first.python, first.gpus, first.env) == ("3.12", ("A10",), (("A", "1"), ("B", "3")))
    assert (first.files, first.tags, first.required_level) == ((("/opt/x.so", "x.so"),), ("t",), Level.GPU)
    assert (second.gpus, second.env, second.required_level) == (("A100", "H100"), (("A", "1"), ("B", "2")), Level.IMAGE)
    assert loaded.publish == matrix.Publish(level=Level.IMAGE, prefix="v2")


def test_axes_come_first_in_a_stable_order_with_ids_from_the_template(load):
    loaded = load(
        """
        [[row]]
        id = "own"
        expect = "certify"
        [defaults]
        base = "ubuntu:22.04"
        expect = "certify"
        [axes]
        id = "cu{cuda}-py{python}-{flash-attn.version}-{torch}"
        cuda = ["12.1.105", "12.2.0"]
        python = ["3.10", "3.11"]
        exclude = [{ cuda = "12.2.0", python = "3.11" }]
        include = [
            { cuda = "12.2.0", expect = "reject", because = { check = "toolkit.matches-torch", matches = "12.2" } },
            { cuda = "12.0.146", id = "old", toolkit = "none" },
        ]
        """
    )
    assert [(row.id, row.cuda, row.python, row.expect) for row in loaded.rows] == [
        ("cu12.1.105-py3.10-2.8.3-2.4.0-cu121", "12.1.1", "3.10", "certify"),
        ("cu12.1.105-py3.11-2.8.3-2.4.0-cu121", "12.1.1", "3.11", "certify"),
        ("cu12.2.0-py3.10-2.8.3-2.4.0-cu121", "12.2.0", "3.10", "reject"),
        ("old", "12.0.1", "3.11", "certify"),
        ("own", "12.1.1", "3.11", "certify"),
    ]
    assert loaded.rows[2].because[0].matches == "12.2"


def test_without_a_template_the_values_make_the_id(load):
    loaded = load('[axes]\nexpect = ["certify"]\npython = ["3.11"]\ngpus = [["A10", "RTX 4090"]]\n')
    assert [row.id for row in loaded.rows] == ["3.11-a10-rtx-4090"]


def test_select_keeps_the_order_of_the_file_and_names_what_is_not_there():
    loaded = matrix.load(ROOT / "matrix.toml")
    assert loaded.select() == loaded.rows
    assert [row.id for row in loaded.select(["no-kernels", "cu121", "cu121"])] == ["cu121", "no-kernels"]
    with pytest.raises(UsageError) as caught:
        loaded.select(["cu12l", "cu121", "no-kernel"])
    first, second = str(caught.value).splitlines()
    assert "no row 'cu12l'; perhaps you meant 'cu12" in first
    assert "no row 'no-kernel'; perhaps you meant 'no-kernels'" in second


# --- what a file can get wrong ---


ROW = '[[row]]\nid = "a"\nexpect = "certify"\n'  # the line after it is line 4
REJECT = '[[row]]\nid = "a"\nexpect = "reject"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # names
        (ROW + 'cuda = "12.1.106"', "4: row 'a': unknown CUDA release '12.1.106'; perhaps you meant '12.1.105'"),
        (ROW + 'torch = "2.4.0+cu120"', "4: row 'a': unknown torch build '2.4.0+cu120'; perhaps you meant '2.4.0+cu12"),
        (ROW + 'gpus = ["A100",\n"A11"]', "5: row 'a': unknown GPU 'A11'; perhaps you meant 'A10'"),
        (ROW + 'flash-attn.nvcc = "12.5"', "4: row 'a': unknown nvcc '12.5'; perhaps you meant '12.4'"),
        (ROW + 'python = "3.13"', "4: row 'a': torch 2.4.0+cu121 has no wheel for Python 3.13; perhaps you meant '3.1"),
        ("[defaults]\ncuda = '9'\n" + ROW, "2: defaults: unknown CUDA release '9'; choose from"),
        # keys
        (ROW + 'tolkit = "base"', "4: row 'a': unknown key 'tolkit'; perhaps you meant 'toolkit'"),
        (ROW + 'library_path = "toolkit"', "4: row 'a': unknown key 'library_path'; perhaps you meant 'library-path'"),
        (ROW + 'nvcc = "11.8"', "4: row 'a': unknown key 'nvcc'; it belongs into 'flash-attn'"),
        (ROW + "[row.flash-attn]\nnvc = '12.4'", "5: row 'a': unknown key 'nvc'; perhaps you meant 'nvcc'"),
        (ROW + "[rows]", "4: unknown key 'rows'; perhaps you meant 'row'"),
        (ROW + "[publish]\nlevl = 'gpu'", "5: publish: unknown key 'levl'; perhaps you meant 'level'"),
        ("[[row]]\nexpect = 'certify'", "1: row 1: the key 'id' is missing"),
        # types and values
        (ROW + "cuda = 12.1", "4: row 'a': 'cuda' must be a string, but is a number; write it in quotes: \"12.1\""),
        (ROW + "gpus = 'A100'", "4: row 'a': 'gpus' must be an array, but is a string"),
        (ROW + "gpus = []", "4: row 'a': 'gpus' is empty; give at least one value, or leave the key out"),
        (ROW + "flash-attn.archs = ['8.0']", "4: row 'a': 'archs' cannot be '8.0': write an architecture as CUDA does"),
        (ROW + "gpus = [1]", "4: row 'a': 'gpus' must be a string, but is an integer"),
        (ROW + 'what = "a\\nb"', "4: row 'a': 'what' cannot be 'a\\nb': a Dockerfile cannot hold a line break"),
        (ROW + 'env = { A = "x\\ry" }', "4: row 'a': 'A' cannot be 'x\\ry': a Dockerfile cannot hold a line break"),
        (ROW + "flash-attn = true", "4: row 'a': 'flash-attn' must be a table, but is a boolean"),
        (ROW + "env = { A = 1 }", "4: row 'a': 'A' must be a string, but is an integer"),
        (ROW + "env = { 'A B' = '1' }", "4: row 'a': the key cannot be 'A B': an environment variable's name"),
        (ROW + "tags = ['-x']", "4: row 'a': 'tags' cannot be '-x': an image tag has"),
        (ROW + "cuda = 2026-01-01", "4: row 'a': 'cuda' must be a string, but is a date or time"),
        (ROW + "toolkit = 'wheel'", "4: row 'a': 'wheel' is not a value of 'toolkit'; perhaps you meant 'wheels'"),
        (ROW + "flash-attn.head-dims = [96, 97]", "4: row 'a': 97 is not a value of 'head-dims'; choose from 32, 64"),
        ("[[row]]\nid = 'Cu'\nexpect = 'certify'", "2: row 'Cu': 'id' cannot be 'Cu': use lower-case letters"),
        ("[row]\nid = 'a'", "1: rows are an array of tables: write [[row]], with two brackets"),
        ("row = [1]", "1: row 1: 'row' must be a table, but is an integer"),
        ("", " it holds no row; add a [[row]] or [axes]"),
        # expectations
        ("[[row]]\nid = 'a'", "1: row 'a': it does not say what is expected; add expect = \"certify\""),
        (REJECT, "3: row 'a': expect = \"reject\" needs 'because'"),
        (
            ROW + "because = { check = 'torch.import', matches = 'x' }",
            "4: row 'a': a row with expect = \"certify\" has no 'because'",
        ),
        (
            REJECT + "because = { check = 'torch.imprt', matches = 'x' }",
            "'torch.imprt'; perhaps you meant 'torch.import'",
        ),
        (REJECT + "because = { check = 'build.flash', matches = 'x' }", "perhaps you meant 'build.flash-attn'"),
        (REJECT + "because = { check = 'torch.import', matches = '(' }", "'(' is not a regular expression: missing )"),
        (REJECT + "because = { check = 'torch.import', matches = '.*' }", "4: row 'a': '.*' matches anything"),
        (REJECT + "because = { check = 'torch.import' }", "4: row 'a': the key 'matches' is missing"),
        (
            REJECT
            + "because = [\n{ check = 'torch.import', matches = 'x' },\n{ check = 'torch.import', matches = 'y' }]",
            "6: row 'a': 'torch.import' is named twice",
        ),
        (
            REJECT + "because = [{ check = 'torch.import', matches = 'x' }, { check = 'build.torch', matches = 'y' }]",
            "4: row 'a': 'build.torch' cannot come with another reason",
        ),
        # reasons that cannot come true
        (
            REJECT + "runtime = 'none'\nbecause = { check = 'sample.parity', matches = 'x' }",
            "5: row 'a': 'sample.parity' can never fail in this row: runtime = \"none\"",
        ),
        (
            REJECT + "flash-attn.source = 'none'\nbecause = { check = 'flash-attn.import', matches = 'x' }",
            "5: row 'a': 'flash-attn.import' can never fail in this row",
        ),
        (
            REJECT + "flash-attn.source = 'base'\nbecause = { check = 'build.flash-attn', matches = 'x' }",
            "5: row 'a': 'build.flash-attn' can never fail in this row",
        ),
        (REJECT + "because = { check = 'build.files', matches = 'x' }", "the row lays no files over the image"),
        # values that do not go together
        (ROW + "toolkit = 'none'\nlibrary-path = 'toolkit'", "5: row 'a': library-path = \"toolkit\" needs a toolkit"),
        (ROW + "flash-attn.source = 'release'", "4: row 'a': flash-attn.source = \"release\" needs flash-attn.url"),
        (ROW + "flash-attn.url = 'https://x/y.whl'", "row 'a': flash-attn.sha256 is missing: a wheel is named by"),
        (ROW + "files = { '/x' = 'nowhere' }", "4: row 'a': 'nowhere' does not exist beside the matrix file"),
        (ROW + "files = { '/x' = '.' }", "4: row 'a': '.' is the folder of the matrix file itself"),
        (ROW + "files = { '/x' = '' }", "4: row 'a': '' is the folder of the matrix file itself"),
        (ROW + f"files = {{ '/x' = '{'x' * 300}' }}", "xx... cannot be looked for beside the matrix file: File name"),
        (ROW + "flash-attn.version = '../x'", "4: row 'a': 'version' cannot be '../x': give a version"),
        (ROW + "files = { '/x' = '../x' }", "4: row 'a': '../x' must lie beside the matrix file"),
        (ROW + ROW, "5: row 'a': the id 'a' is taken by another row"),
        (ROW.replace("'a'", "'junit.xml'").replace('"a"', '"junit.xml"'), "the id 'junit.xml' is taken by what"),
        (
            ROW + "tags = ['t']\n" + ROW.replace("'a'", "'b'").replace('"a"', '"b"') + "tags = ['t']",
            "8: row 'b': the tag 't' follows row 'a' already",
        ),
        (
            ROW + "flash-attn = { source = 'release', url = 'http://host.invalid/x.whl', sha256 = '" + "0" * 64 + "' }",
            "4: row 'a': 'url' cannot be 'http://host.invalid/x.whl'",
        ),
        (
            ROW + "flash-attn = { url = 'https://bob:s3cret@host.invalid/x.whl', sha256 = '" + "0" * 64 + "' }",
            "4: row 'a': flash-attn.url holds a user, password or token, and certificates would publish it",
        ),
        # axes
        ("[axes]\nexpect = ['certify']\npython = '3.11'", "3: axes: 'python' must be an array, but is a string"),
        ("[axes]\nexpect = ['certify']\npyton = ['3.11']", "3: axes: unknown key 'pyton'; perhaps you meant 'python'"),
        (
            "[axes]\nexpect = ['certify']\nid = '{pyton}'",
            "3: axes: 'pyton' in the template of ids is no value of the row",
        ),
        ("[axes]\nexpect = ['certify']\nexclude = [{ python = '3.9' }]", "axes.exclude 1: it excludes by 'python'"),
        (
            "[axes]\nexpect = ['certify']\npython = ['3.11']\nexclude = [{ python = '3.1' }]",
            "4: axes.exclude 1: the axis 'python' has no value '3.1'; perhaps you meant '3.11'",
        ),
        ("[axes]\nexpect = ['certify']\ngpus = [['A10'], []]", "3: axes: 'gpus' is empty; give at least one value"),
        (
            "[axes]\nexpect = ['certify']\ncuda = ['12.1.1',\n'12.9.9']",
            "4: axes: unknown CUDA release '12.9.9'",
        ),
        (
            "[axes]\nexpect = ['certify', 'reject']\ncuda = ['" + "', '".join(map(str, range(5001))) + "']",
            "1: the axes have 10002 combinations, and 10000 are the most that are looked at",
        ),
        (
            "[axes]\nexpect = ['certify']\ngpus = [['A10'], ['A100']]\nid = 'same'",
            "4: axes: the id 'same' is taken by another row",
        ),
    ],
)
def test_one_problem_gives_one_clear_line(problems, text, problem):
    (line,) = problems(text)
    assert line.startswith("matrix.toml:")
    assert problem in line


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[row]\nid = 1", "matrix.toml:1:6: not valid TOML: "),
        ('[[row]]\nid = "a"\nid = "b"', "matrix.toml:3:"),
        ("a = 1\nb = \n", "matrix.toml:2:5: not valid TOML: "),
    ],
)
def test_bad_toml_names_line_and_column(problems, text, place):
    (line,) = problems(text)
    assert line.startswith(place)


def test_all_problems_at_once_in_the_order_of_the_file_and_none_twice(problems):
    lines = problems(
        """\
[defaults]
cuda = "12.1.106"
bse = "x"
[[row]]
id = "a"
expect = "certify"
gpus = ["A11"]
[[row]]
id = "a"
expect = "reject"
because = { check = "torch.imprt", matches = "(" }
toolkit = "wheel"
[[row]]
expect = "certifi"
python = "3.13"
[publish]
level = 1
"""
    )
    assert [line.split(": ")[0].removeprefix("matrix.toml:") for line in lines] == [
        "2", "3", "7", "9", "11", "11", "12", "13", "14", "15", "17"
    ]  # fmt: skip


def test_a_mark_at_the_beginning_and_windows_line_ends_change_nothing(tmp_path, problems):
    file = tmp_path / "matrix.toml"
    file.write_bytes(b"\xef\xbb\xbf" + ROW.replace("\n", "\r\n").encode())
    assert [row.id for row in matrix.load(file).rows] == ["a"]
    file.write_bytes(b"\xef\xbb\xbf# ok\n# gr\xfc\xdfe\n")
    with pytest.raises(MatrixError, match=r"matrix\.toml:2: not valid TOML: byte 9"):
        matrix.load(file)
    assert problems("\ufeffa = 1\nb = \n")[0].startswith("matrix.toml:2:5: ")


def test_what_follows_from_a_refused_reason_is_not_reported_again(problems):
    assert len(problems(REJECT + "because = { check = 'torch.import' }")) == 1
    assert len(problems(REJECT + "because = 'torch.import'")) == 1
    assert len(problems(ROW + "flash-attn = { source = 'relaese' }")) == 1


def test_without_known_checks_only_the_form_of_an_id_counts(tmp_path):
    file = tmp_path / "matrix.toml"
    file.write_text(REJECT + "because = { check = 'my.check', matches = 'x' }", encoding="utf-8")
    assert matrix.load(file).rows[0].because[0].check == "my.check"
    for bad in ("import", "build.troch"):
        file.write_text(REJECT + f"because = {{ check = '{bad}', matches = 'x' }}", encoding="utf-8")
        with pytest.raises(MatrixError, match=f"unknown check '{bad}'"):
            matrix.load(file)


@pytest.mark.parametrize("text", ["a = " + "[" * 3000 + "]" * 3000, ".".join(["a"] * 3000) + " = 1"])
def test_a_file_that_nests_without_end_is_one_problem(problems, text):
    (line,) = problems(text)
    assert line.startswith("matrix.toml: it nests arrays or tables deeper")


# What somebody may write by mistake, or in bad faith, wherever the file has a value.
ODD = [
    True,
    10**30,
    "",
    "\0",
    "a\nb",
    "..",
    "/dev/null",
    "x" * 5000,
    "x/" * 3000,
    "{x}",
    "[",
    "base",
    [[]],
    [{}],
    {"a": {}},
]
FULL: dict[str, Any] = {
    "publish": {"level": "gpu", "prefix": "v1"},
    "defaults": {"env": {"A": "b"}, "gpus": ["A100"], "flash-attn": {"version": "2.8.3", "archs": ["80"]}},
    "axes": {
        "id": "a{cuda}",
        "cuda": ["12.1.105", "12.2.0"],
        "include": [{"cuda": "12.1.105", "expect": "certify"}, {"cuda": "12.2.0", "expect": "certify"}],
        "exclude": [{"cuda": "12.2.0"}],
    },
    "row": [
        {"id": "b", "expect": "reject", "because": [{"check": "torch.import", "matches": "x"}]},
        {
            "id": "c",
            "expect": "certify",
            "base": "debian:bookworm",
            "files": {"/x": "own.dockerfile"},
            "requirements": "requirements.txt",
            "dockerfile": "own.dockerfile",
            "context": "app",
            "flash-attn": {"source": "compile", "nvcc": "12.4", "head-dims": [64], "url": "https://x.invalid/y.whl"},
        },
    ],
}


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*place, key)
        yield from _places(below, (*place, key))


@pytest.mark.parametrize("place", list(_places(FULL)), ids=lambda place: ".".join(map(str, place)))
def test_no_value_anywhere_is_anything_but_accepted_or_a_problem(place, tmp_path):
    """With files beside the matrix, unlike `test_no_content_gets_past...`: names of files reach the file system."""
    (tmp_path / "own.dockerfile").write_text("RUN true\n")
    (tmp_path / "requirements.txt").write_text(f"six==1.16.0 --hash=sha256:{'0' * 64}\n")
    (tmp_path / "app").mkdir()
    file = tmp_path / "any.toml"
    for odd in ODD:
        raw = copy.deepcopy(FULL)
        inner = raw
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = odd
        file.write_text("".join(f"{key} = {written(value)}\n" for key, value in raw.items()), encoding="utf-8")
        found = rows_or_problems(file)
        assert found
        assert all(isinstance(item, Row) or item.startswith(str(file)) for item in found), odd


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(MatrixError, match="cannot be read"):
            matrix.load(path)
    broken = tmp_path / "latin1.toml"
    broken.write_bytes(b"# ok\n# gr\xfc\xdfe\n")
    with pytest.raises(MatrixError, match=r"latin1\.toml:2: not valid TOML"):
        matrix.load(broken)


scalars = st.one_of(
    st.integers(), st.booleans(), st.sampled_from(["", "a", "12.1.105", "none", "reject", "build.torch"])
)
names = st.sampled_from(
    [
        "id",
        "expect",
        "because",
        "check",
        "matches",
        "cuda",
        "flash-attn",
        "nvcc",
        "gpus",
        "env",
        "files",
        "include",
        "x",
    ]
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=15
)


@settings(deadline=None)  # it is about what comes out, on a machine however busy
@given(st.dictionaries(st.sampled_from(["row", "defaults", "axes", "publish", "x"]), anything, max_size=4))
def test_no_content_gets_past_as_anything_but_rows_or_problems(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text("".join(f"{key} = {written(value)}\n" for key, value in content.items()), encoding="utf-8")
    found = rows_or_problems(file)
    assert found
    assert all(isinstance(item, Row) or item.startswith(str(file)) for item in found)


def rows_or_problems(file: Path):
    try:
        return matrix.load(file).rows
    except MatrixError as error:
        return error.problems


def written(value) -> str:
    """TOML of a value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)
