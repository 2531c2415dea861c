"""Reading single files out of wheels in the package index, without downloading the wheels.

NVIDIA's wheels are hundreds of MB; what a claim is about is a header or a library of a few. A wheel is a zip archive,
and the index answers range requests, so that its directory and one member are all that travels.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from assay.errors import IngredientError
from assay.network import NetworkSettings
from assay.redact import without_passwords

BLOCK = 1 << 20  # bytes per request; a wheel's directory fits into one
TIMEOUT_SECONDS = (15.0, 60.0)  # to connect, and between two pieces of an answer
# What may pass is asked for again, after 0, 2, 4 and 8 seconds, and no later: a server may ask for an hour.
AGAIN = Retry(
    total=4, backoff_factor=1.0, status_forcelist=(408, 429, 500, 502, 503, 504), respect_retry_after_header=False
)


@lru_cache(maxsize=32)
def open_wheel(package: str, version: str) -> zipfile.ZipFile:
    """Return the wheel of a package, opened where it lies in the index.

    Raises IngredientError when the index cannot be reached, has no such wheel, or its server cannot send parts of a
    file.
    """
    url = wheel_url(package, version)
    try:
        remote = _Remote(url, NetworkSettings.from_host().ca_bundle)
        return zipfile.ZipFile(io.BufferedReader(remote, BLOCK))
    except (requests.RequestException, zipfile.BadZipFile, OSError) as error:
        why = without_passwords(str(error))
        raise IngredientError(f"cannot read the wheel of {package} {version} in the package index: {why}") from error


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel of this machine. Raises IngredientError when it, or what is read of it, is damaged."""
    try:
        with zipfile.ZipFile(path) as wheel:
            yield wheel
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise IngredientError(f"{path}: damaged wheel: {error}; delete it and fetch it again") from error


def wheel_url(package: str, version: str) -> str:
    """Return the address of a package's Linux wheel, as pip resolves it with this machine's own settings.

    Raises IngredientError when pip finds none.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        command = [
            sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed",
            "--only-binary=:all:", "--python-version", "3.11", "--platform", "manylinux2014_x86_64",
            "--platform", "manylinux1_x86_64", "--target", nowhere, "--report", "-", f"{package}=={version}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = without_passwords((done.stderr.strip() or "pip said nothing").splitlines()[-1])
        raise IngredientError(f"pip finds no wheel of {package} {version}: {reason}")
    url: str = json.loads(done.stdout)["install"][0]["download_info"]["url"]
    return url


class _Remote(io.RawIOBase):
    """A file on a server, read by ranges. ca_bundle: whom to trust; None for what requests trusts."""

    def __init__(self, url: str, ca_bundle: Path | None) -> None:
        self._url, self._position = url, 0
        self._verify = str(ca_bundle) if ca_bundle else True
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"  # lengths and ranges are the file's own
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=AGAIN))
        head = self._session.head(url, allow_redirects=True, timeout=TIMEOUT_SECONDS, verify=self._verify)
        head.raise_for_status()
        length = head.headers.get("Content-Length", "")
        if not length.isdigit():
            raise IngredientError("the server of the package index does not say how long the wheel is")
        self._size = int(length)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size) - 1
        if end < self._position:
            return 0
        wanted = {"Range": f"bytes={self._position}-{end}"}
        try:
            # The body is read only once it is known to be the part, and not the whole file.
            with self._session.get(
                self._url, headers=wanted, timeout=TIMEOUT_SECONDS, verify=self._verify, stream=True
            ) as answer:
                answer.raise_for_status()
                if answer.status_code != requests.codes.partial_content:
                    raise IngredientError("the server of the package index sends whole files only")
                content = answer.content
        except requests.RequestException as error:  # an OSError, which zipfile would take for the end of the file
            why = without_passwords(str(error))
            raise IngredientError(f"reading a wheel in the package index broke off: {why}") from error
        if len(content) != end - self._position + 1:
            raise IngredientError("the server of the package index sends other parts of a file than it is asked for")
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def member(wheel: zipfile.ZipFile, ending: str) -> IO[bytes]:
    """Return the one member whose path ends so, fully read. Raises IngredientError when there is not exactly one."""
    names = [name for name in wheel.namelist() if name.endswith(ending)]
    if len(names) != 1:
        raise IngredientError(f"{len(names)} files of the wheel end in {ending!r}; exactly one was expected")
    return io.BytesIO(wheel.read(names[0]))
