"""Downloading a wheel by URL and sha256: resumed where it broke off, kept only when it is the file asked for."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from assay.errors import IngredientError
from assay.files import file_sha256

TIMEOUT_SECONDS = (15.0, 60.0)  # to connect, and between two pieces of the body
PAUSES_SECONDS = (1.0, 4.0, 15.0, 30.0)  # between one try and the next: five tries in all
LOOK_UP_SECONDS = 0.5
PIECE_BYTES = 1 << 16  # of which a broken transfer loses the last

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes that there will be (0: the server does not say)."""


class _Unfinished(Exception):
    """The transfer broke off; what arrived is in the partial file."""


def file_name(url: str) -> str:
    """Return the file name at the end of a URL, decoded.

    >>> file_name("https://example.org/v2.8.3/flash_attn-2.8.3%2Bcu12torch2.4cxx11abiFALSE-cp311-cp311-linux_x86_64.whl")
    'flash_attn-2.8.3+cu12torch2.4cxx11abiFALSE-cp311-cp311-linux_x86_64.whl'
    """
    return Path(unquote(urlsplit(url).path)).name  # decoded first: `%2F` in it must not lead out of a folder


def download(
    url: str,
    sha256: str,
    to: Path,
    *,
    on_progress: Progress,
    ca_bundle: Path | None = None,
    pauses: tuple[float, ...] = PAUSES_SECONDS,
) -> Path:
    """Download `url` to the file `to` and return `to`; it is there only when its sha256 is the one asked for.

    What arrives is kept in `to` + `.part`, so that a broken transfer, or the next run, goes on from there. A hash that
    is wrong after a resumed transfer gets one more try from the first byte: the server's file may have changed
    in between.

    ca_bundle: whom to trust; None for what requests trusts. pauses: seconds between one try and the next.
    Raises IngredientError when the server refuses, cannot be reached after all tries, or sends another file.
    """
    if to.exists() and file_sha256(to) == sha256:
        return to
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(to.name + ".part")
    with requests.Session() as http:
        http.verify = str(ca_bundle) if ca_bundle else True
        resumed = partial.exists() and partial.stat().st_size > 0
        _fetch_all(http, url, partial, on_progress, pauses)
        got = file_sha256(partial)
        if got != sha256 and resumed:
            partial.unlink()
            _fetch_all(http, url, partial, on_progress, pauses)
            got = file_sha256(partial)
    if got != sha256:
        partial.unlink()
        raise IngredientError(
            f"{url}: the file has sha256 {got}, but the matrix asks for {sha256}; it was not kept. If the release was "
            "replaced on purpose, put the new hash into flash-attn.sha256; otherwise do not use that file"
        )
    partial.replace(to)
    return to


def _fetch_all(
    http: requests.Session, url: str, partial: Path, on_progress: Progress, pauses: tuple[float, ...]
) -> None:
    """Bring the partial file to its full length, in as many requests as it takes and `pauses` allows."""
    for pause in (*pauses, None):
        try:
            _fetch(http, url, partial, on_progress)
        except (_Unfinished, requests.RequestException) as error:
            if pause is None:
                have = partial.stat().st_size if partial.exists() else 0
                raise IngredientError(
                    f"{url}: download failed {len(pauses) + 1} times, last: {error}; {have} bytes are kept and the "
                    "next run goes on from there. Or put the wheel into a folder and pass it with --wheelhouse"
                ) from error
            _wait(pause, partial, on_progress)
        else:
            return


def _wait(seconds: float, partial: Path, on_progress: Progress) -> None:
    """Wait before the next try, and look up now and then: `on_progress` raises when the run is asked to stop."""
    have = partial.stat().st_size if partial.exists() else 0
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        on_progress(have, 0)
        time.sleep(min(left, LOOK_UP_SECONDS))


def _fetch(http: requests.Session, url: str, partial: Path, on_progress: Progress) -> None:
    """Make one request for what is missing of the partial file.

    Raises _Unfinished when it may be worth asking again, IngredientError when the server's answer is final.
    """
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with http.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            if _full_length(response) == have:
                return
            partial.unlink()  # more than the server has, so no beginning of its file
            raise _Unfinished("the partial file did not belong to this URL")
        if response.status_code >= requests.codes.internal_server_error or response.status_code in (
            requests.codes.request_timeout,
            requests.codes.too_many_requests,
        ):
            raise _Unfinished(f"the server answered {response.status_code} {response.reason}")
        if not response.ok:
            raise IngredientError(
                f"{url}: the server answered {response.status_code} {response.reason}; correct flash-attn.url in the "
                "matrix, or put the wheel into a folder and pass it with --wheelhouse"
            )
        if response.status_code != requests.codes.partial_content or _first_byte(response) != have:
            have = 0  # the whole file comes
        total = _total(response, have)
        with partial.open("r+b" if have else "wb") as file:
            file.seek(have)
            on_progress(have, total)
            for piece in response.iter_content(PIECE_BYTES):
                file.write(piece)
                have += len(piece)
                on_progress(have, total)
        if total and have != total:
            raise _Unfinished(f"the transfer ended after {have} of {total} bytes")


def _first_byte(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _full_length(response: requests.Response) -> int | None:
    match = re.fullmatch(r"bytes .*/(\d+)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _total(response: requests.Response, have: int) -> int:
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdigit() else 0
