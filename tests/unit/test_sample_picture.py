"""The sample picture: out of the finding, into a file, and never a stale or a foreign one."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from assay.checks import picture
from assay.findings import Finding, Status


def png(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (1, 2, 3)).save(buffer, format="PNG")
    return buffer.getvalue()


def findings(content: object) -> list[Finding]:
    return [
        Finding(check="torch.import", status=Status.PASSED, data={"png": "another check's own"}),
        Finding(check="sample.generate", status=Status.PASSED, data={"right": 12, "png": content}),
    ]


def test_the_picture_becomes_a_file_and_leaves_the_finding(tmp_path):
    path = tmp_path / "row/sample.png"
    kept = picture.keep(findings(base64.b64encode(png()).decode()), path)
    assert path.read_bytes() == png()
    assert [finding.data for finding in kept] == [{"png": "another check's own"}, {"right": 12}]


@pytest.mark.parametrize(
    "content",
    [
        base64.b64encode(b"<html>").decode(),
        base64.b64encode(png()[:-4]).decode(),
        base64.b64encode(png(5000)).decode(),
        "no base64 at all!",
        "A" * (picture.LARGEST_BYTES + 4),
        7,
        None,
    ],
)
def test_what_is_no_png_is_not_kept_and_neither_is_an_older_one(tmp_path, content):
    path = tmp_path / "sample.png"
    path.write_bytes(png())
    kept = picture.keep(findings(content), path)
    assert not path.exists()
    assert kept[1].data == {"right": 12}


def test_without_a_picture_the_older_one_is_gone(tmp_path):
    path = tmp_path / "sample.png"
    path.write_bytes(png())
    before = [Finding(check="sample.generate", status=Status.BLOCKED)]
    assert picture.keep(before, path) == before
    assert not path.exists()
