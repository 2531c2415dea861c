"""Takes the picture that `sample.generate` drew out of its finding, so that it becomes a file beside the report."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import struct
from collections.abc import Sequence
from pathlib import Path

from assay.files import write_atomically
from assay.findings import Finding

CHECK, KEY = "sample.generate", "png"
LARGEST_BYTES = 4 << 20
LARGEST_SIDE = 4096
# Signature, then a header chunk of 13 bytes that starts with width and height.
START = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 13, b"IHDR")
END = struct.pack(">I4sI", 0, b"IEND", 0xAE426082)


def keep(findings: Sequence[Finding], path: Path) -> list[Finding]:
    """Write the first picture of a row to `path` and return the findings without it.

    A picture of an earlier run never stays: without one in the findings, or with one that is no PNG, `path` is gone.
    """
    kept = []
    path.unlink(missing_ok=True)
    for finding in findings:
        if finding.check == CHECK and KEY in finding.data:
            content = _decoded(finding.data[KEY])
            if content is not None:
                write_atomically(path, content)
            data = {name: value for name, value in finding.data.items() if name != KEY}
            kept.append(dataclasses.replace(finding, data=data))
        else:
            kept.append(finding)
    return kept


def _decoded(text: object) -> bytes | None:
    """Return the PNG that a check answered with; None for anything that is none. The image that sent it is on trial."""
    if not isinstance(text, str) or len(text) > LARGEST_BYTES:
        return None
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not content.startswith(START) or not content.endswith(END):
        return None
    width, height = struct.unpack_from(">II", content, len(START))
    return content if 0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE else None
