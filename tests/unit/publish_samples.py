"""Small images that look to an inventory like real ones, and certificates for them."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from assay import checks, releases
from assay.certificate import (
    Certificate,
    GpuUsed,
    ImageIdentity,
    Ingredient,
    RowEvidence,
    make_certificate,
    row_json,
    store,
)
from assay.findings import Finding, Level, Status
from assay.keys import SigningKey
from assay.matrix.row import Reason, Row
from assay.verdict import judge

SITE = "opt/venv/lib/python3.11/site-packages"
# Everything that is asked of a row at level gpu, so that the samples stand up to the gate at either level.
REQUIRED = tuple(sorted(checks.required(Row(id="cu121", expect="certify"), Level.GPU)))
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def file_system(seed: str = "", *, torch: str = "2.4.0+cu121", cudart: str = "12.1.105") -> dict[str, str]:
    """Return the files that an inventory reads, and one that makes each image its own."""
    return {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n',
        "var/lib/dpkg/status": "\n\n".join(
            (
                "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u10",
                "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2.15-2+b8",
                "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1",
            )
        )
        + "\n",
        "usr/local/cuda-12.1/version.json": json.dumps(
            {
                "cuda": {"name": "CUDA SDK", "version": "12.1.1"},
                "cuda_cudart": {"name": "CUDA Runtime", "version": cudart},
                "cuda_nvcc": {"name": "CUDA NVCC", "version": "12.1.105"},
            }
        ),
        f"{SITE}/torch-{torch}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n\ntext\n",
        f"{SITE}/torch-{torch}.dist-info/RECORD": "torch/__init__.py,sha256=abc,10\n",
        f"{SITE}/flash_attn-2.8.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: flash_attn\nVersion: 2.8.3\n\n",
        f"{SITE}/flash_attn-2.8.3.dist-info/RECORD": "flash_attn/__init__.py,sha256=def,10\n",
        f"{SITE}/numpy-1.26.4.dist-info/METADATA": "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n\n",
        f"{SITE}/numpy-1.26.4.dist-info/RECORD": "numpy/__init__.py,sha256=123,10\n",
        "opt/newbie/seed": seed,
    }


def tar(files: dict[str, str]) -> io.BytesIO:
    """Return files as a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as out:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            out.addfile(member, io.BytesIO(text.encode()))
    archive.seek(0)
    return archive


def row(row_id: str = "cu121", **changes: Any) -> Row:
    """Return a row that is to be certified."""
    return Row(**{"id": row_id, "expect": "certify", "tags": ("latest",), **changes})


def evidence(
    of: Row,
    image_id: str | None,
    *,
    failed: str | None = None,
    level: Level = Level.IMAGE,
    finished: datetime = NOON,
    tags: tuple[str, ...] = (),
) -> RowEvidence:
    """Return what a run would have found: every required check passed, or one of them failed."""
    findings = tuple(
        Finding(
            check=name,
            status=Status.FAILED if name == failed else Status.PASSED,
            required="it imports",
            measured="it does not" if name == failed else "it does",
            evidence="ImportError" if name == failed else "",
            seconds=0.25,
            data={"capability": "8.0", "not_judged": []} if name == "gpu.matches-row" else {},
        )
        for name in REQUIRED
    )
    return RowEvidence(
        row=row_json(of),
        verdict=judge(of, findings, REQUIRED),
        level=level,
        required=REQUIRED,
        findings=findings,
        image=ImageIdentity(id=image_id, size=1234, tags=tags) if image_id else None,
        dockerfile_digest="a" * 64,
        base_digest="b" * 64,
        ingredients=(
            Ingredient(
                name="flash-attn",
                version="2.8.3+sm80",
                sha256="c" * 64,
                source="compile",
                compiler="nvcc 12.4.131, g++ 12.2.0",
            ),
            Ingredient(name="lock torch-py3.11.txt", version="dddd", sha256="d" * 64, source="docker/locks"),
        ),
        checks_digest=checks.digest(),
        releases_digest=releases.load().digest,
        gpu=GpuUsed(name="NVIDIA A100-SXM4-40GB", uuid="GPU-1", driver="580.159.04") if level is Level.GPU else None,
        started=finished - timedelta(minutes=5),
        finished=finished,
        assay_version="0.1.0",
        builder="Docker Engine 20.10.24",
    )


def rejected_row() -> Row:
    """Return a row that is to be rejected, for the reason that `evidence(failed="torch.import")` shows."""
    return row("cu120", expect="reject", because=(Reason(check="torch.import", matches="ImportError"),), tags=())


def write_certificate(out: Path, of: RowEvidence, key: SigningKey | None) -> Certificate:
    """Put a certificate where publishing looks for it."""
    certificate = make_certificate(of, key)
    store.write(out / of.row_id / store.NAME, certificate)
    return certificate
