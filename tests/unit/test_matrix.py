"""Matrix files: the ones that are shipped, and what a file can say."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from matrix_texts import load_text

from assay import matrix
from assay.errors import UsageError
from assay.findings import Level
from assay.matrix.row import FlashAttn, Reason

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(tmp_path):
    """Load a matrix from its text."""
    return partial(load_text, tmp_path)


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
