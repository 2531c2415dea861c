"""Every way in which a matrix file can be wrong: one clear line for each, all at once."""

from __future__ import annotations

import re

import pytest
from matrix_texts import REJECT, ROW, load_text

from assay import matrix
from assay.errors import ExitCode, MatrixError


@pytest.fixture
def problems(tmp_path):
    """The problems of a text, without the folder's name."""

    def problems_of(text: str) -> list[str]:
        with pytest.raises(MatrixError) as caught:
            load_text(tmp_path, text)
        assert caught.value.code is ExitCode.USAGE
        lines = [re.sub(r"^.*?matrix\.toml", "matrix.toml", problem) for problem in caught.value.problems]
        assert all("\n" not in line and len(line) < 300 for line in lines)
        return lines

    return problems_of


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
        (
            ROW + "optional-libraries = ['numba/*', 'torch/lib/*']",
            "row 'a': 'torch/lib/*' is of torch, of which every",
        ),
        (ROW + "optional-libraries = ['*.so']", "4: row 'a': 'optional-libraries' cannot be '*.so': give a package's"),
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
        ("[[row]]\nid = 'a.'\nexpect = 'certify'", "2: row 'a.': 'id' cannot be 'a.': use lower-case letters"),
        ("[[row]]\nid = 'a..b'\nexpect = 'certify'", "2: row 'a..b': 'id' cannot be 'a..b': use lower-case letters"),
        (f"[[row]]\nid = '{'x' * 64}'\nexpect = 'certify'", "String should have at most 63 characters"),
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


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(MatrixError, match="cannot be read"):
            matrix.load(path)
    broken = tmp_path / "latin1.toml"
    broken.write_bytes(b"# ok\n# gr\xfc\xdfe\n")
    with pytest.raises(MatrixError, match=r"latin1\.toml:2: not valid TOML"):
        matrix.load(broken)


@pytest.mark.parametrize("text", ["a = " + "[" * 3000 + "]" * 3000, ".".join(["a"] * 3000) + " = 1"])
def test_a_file_that_nests_without_end_is_one_problem(problems, text):
    (line,) = problems(text)
    assert line.startswith("matrix.toml: it nests arrays or tables deeper")
