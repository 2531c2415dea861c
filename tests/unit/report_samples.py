"""Rows as runs report them, and the report of a run with two of them."""

from __future__ import annotations

from dataclasses import replace

from assay.findings import Finding, Level, Status
from assay.report import ImageRecord, Report, RowReport

IMPORT_ERROR = "Traceback ...\nImportError: libcusparse.so.12: undefined symbol: __nvJitLinkAddData_12_1"
GOOD = RowReport(
    id="cu121",
    what="the article's combination",
    expect="certify",
    verdict="certified",
    as_expected=True,
    level=Level.IMAGE,
    image=ImageRecord(id="sha256:" + "a" * 64, tags=("assay/cu121:latest",), size=7_123_000_000),
    build_seconds=100.4,
    check_seconds=20.0,
    findings=(Finding(check="torch.import", status=Status.PASSED, measured="imported"),),
)
ON_GPU = replace(
    GOOD,
    level=Level.GPU,
    gpu={"name": "NVIDIA H100", "uuid": "GPU-1", "driver": "580.159.04", "access": "cdi"},
)
REJECTED = RowReport(
    id="cu120-on-library-path",
    what="CUDA 12.0 first on LD_LIBRARY_PATH",
    expect="reject",
    because=({"check": "torch.import", "matches": "nvJitLink"},),
    verdict="rejected",
    as_expected=True,
    level=Level.IMAGE,
    image=ImageRecord(id="sha256:" + "b" * 64, size=1),
    findings=(
        Finding(check="torch.import", status=Status.FAILED, measured="no import", evidence=IMPORT_ERROR),
        Finding(check="torch.version", status=Status.BLOCKED, measured="torch.import failed"),
    ),
)
REPORT = Report(
    level=Level.IMAGE,
    rows=(GOOD, REJECTED),
    started="2026-01-01T00:00:00+00:00",
    seconds=130.0,
    engine="Docker Engine 20.10.24",
    storage={"total": 9_000_000_000, "shared": 6_000_000_000},
)


def absent(row: RowReport) -> RowReport:
    """Return what a merged report says of a row that none of its parts holds."""
    return RowReport(
        id=row.id,
        what=row.what,
        expect=row.expect,
        because=row.because,
        verdict="inconclusive",
        as_expected=False,
        complete=False,
        level=Level.IMAGE,
        why="in none of the reports",
    )
