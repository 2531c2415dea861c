"""Tells a folder that holds what `assay matrix` wrote, so that `assay check` puts no other image's verdict there."""

from __future__ import annotations

from pathlib import Path

from assay.certificate import store
from assay.errors import CertificateError, UsageError
from assay.report import read


def refuse_to_overwrite(out: Path, row: str) -> None:
    """Raise UsageError when `out` holds the report, or the row's certificate, of a run of the matrix.

    Also when what is there cannot be read: nobody knows then whose it is. What an earlier check wrote may go.
    """
    found = _report(out / "report.json") or _folder(out / row)
    if found:
        raise UsageError(
            f"{found}, which judging another image here would overwrite: give the check a folder of its own with "
            "--out DIR (build/check/ID where there is no --out)"
        )


def _report(path: Path) -> str:
    """Return what is wrong with overwriting a report: it holds more rows than one, or one that was built here."""
    if not path.exists():
        return ""
    try:
        rows = [row.id for row in read(path).rows]
    except UsageError as error:
        return f"{path} is not what `assay check` wrote ({error})"
    if len(rows) != 1:
        return f"{path} is the report of {len(rows)} rows ({', '.join(rows)})"
    return _folder(path.parent / rows[0])


def _folder(folder: Path) -> str:
    """Return what is wrong with overwriting a row's folder: its image was built there, as a check's never is."""
    certificate = folder / store.NAME
    try:
        if store.read(certificate).evidence.dockerfile_digest is not None:
            return f"{certificate} is the certificate of an image that `assay matrix` built"
    except FileNotFoundError:
        pass
    except CertificateError as error:
        return f"nobody can say whose certificate that is: {error}"
    log = folder / "build.log"
    return f"{log} is the log of an image that `assay matrix` built" if log.exists() else ""
