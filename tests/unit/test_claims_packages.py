"""Claims that are measured by reading packages, and the reading of wheels where they lie in the package index."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_answers import Answer, Servers, write_certificate

from assay.claims import by_packages, packages
from assay.claims.table import Context, NotMeasuredError
from assay.errors import IngredientError


def test_declarations_are_compared_without_their_layout():
    header = """
    /* __shfl_sync(unsigned mask) in a comment */
    #define __DEF_IF_HOST { }
    __SM_30_INTRINSICS_DECL__ int __shfl_sync(unsigned mask, int  var, int width=warpSize) __DEF_IF_HOST
    static __device__ __inline__ char __ldg(const char *ptr) { return 0; }
    """
    assert by_packages.declarations(header) == (
        "__SM_30_INTRINSICS_DECL__ int __shfl_sync(unsigned mask, int var, int width=warpSize) __DEF_IF_HOST",
        "static __device__ __inline__ char __ldg(const char *ptr)",
    )


EXTENSION = "flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so"


def wheelhouse(folder: Path, docstring: str) -> Path:
    with zipfile.ZipFile(folder / "flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl", "w") as wheel:
        wheel.writestr("flash_attn/flash_attn_interface.py", f'def flash_attn_func():\n    """{docstring}"""\n')
        wheel.writestr(EXTENSION, b"")
    return folder


def test_a_docstring_that_names_architectures_would_contradict(tmp_path):
    for name, text, supports in (("a", "dropout_p: float", True), ("b", "Runs on sm86 by __shfl_sync", False)):
        (tmp_path / name).mkdir()
        context = Context(wheelhouses=(wheelhouse(tmp_path / name, text),))
        assert by_packages.flash_attn_docstring(context).supports is supports


def test_no_wheel_is_no_measurement(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path))
    with pytest.raises(NotMeasuredError, match="--wheelhouse"):
        by_packages.flash_attn_docstring(Context())


def test_a_wheel_without_a_compiled_module_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path))
    made = tmp_path / "wheelhouse" / "key"
    made.mkdir(parents=True)
    for name in ("2.8.3+assay.nokernels-py3-none-any", "2.8.3+skipped-cp310-cp310-linux_x86_64"):
        with zipfile.ZipFile(made / f"flash_attn-{name}.whl", "w") as wheel:
            wheel.writestr("flash_attn/flash_attn_interface.py", "")
    with pytest.raises(NotMeasuredError, match="--wheelhouse"):
        by_packages.flash_attn_docstring(Context())
    assert (
        "cp311-cp311-linux" in by_packages.flash_attn_docstring(Context(wheelhouses=(wheelhouse(made, "text"),))).text
    )


def test_a_wheel_that_is_damaged_or_still_being_made_is_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_STATE", str(tmp_path))
    partial = tmp_path / "wheelhouse" / ".key.abc"
    partial.mkdir(parents=True)
    (partial / "flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl").write_bytes(b"PK half")
    with pytest.raises(NotMeasuredError, match="--wheelhouse"):
        by_packages.flash_attn_docstring(Context())
    with pytest.raises(IngredientError, match=r"damaged wheel: .*delete it"):
        by_packages.flash_attn_docstring(Context(wheelhouses=(partial,)))
    wheelhouse(partial, "text")
    with zipfile.ZipFile(partial / "flash_attn-2.8.3-cp311-cp311-linux_x86_64.whl", "w") as wheel:
        wheel.writestr(EXTENSION, b"")
    with pytest.raises(IngredientError, match=r"0 files of the wheel end in 'flash_attn/flash_attn_interface\.py'"):
        by_packages.flash_attn_docstring(Context(wheelhouses=(partial,)))


def a_wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr("big.so", b"\0" * 3_000_000)
        wheel.writestr("a/header.h", b"int f();")
    return content.getvalue()


class Index:
    """A file server that a test tells how to misbehave. asked: the lengths of the parts that were asked for."""

    def __init__(self) -> None:
        self.content = a_wheel()
        self.statuses: list[int] = []
        self.ranges = True
        self.too_much = b""
        self.asked: list[int] = []

    def __call__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if method == "HEAD":
            return 200, {}, self.content
        if self.statuses:
            return self.statuses.pop(0), {"Retry-After": "3600"}, b""
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", headers["Range"]).groups())
        self.asked.append(last - first + 1)
        if not self.ranges:
            return 200, {}, self.content
        return 206, {}, self.content[first : last + 1] + self.too_much


@pytest.fixture
def serve() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.close()


@pytest.fixture
def index(serve: Servers, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index over plain HTTP, where every package is its one file."""
    state = Index()
    put_at(f"http://bob:s3cret@{serve(state)}/a.whl", monkeypatch)
    return state


def put_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "wheel_url", lambda package, version: url)
    packages.open_wheel.cache_clear()


def test_a_remote_wheel_is_read_by_ranges(index: Index) -> None:
    wheel = packages.open_wheel("a-package", "1.0")
    assert packages.member(wheel, "/header.h").read() == b"int f();"
    assert sum(index.asked) < len(index.content)
    with pytest.raises(IngredientError, match="0 files"):
        packages.member(wheel, "absent.h")


def test_trouble_of_the_server_is_asked_again_and_for_no_hour(index: Index) -> None:
    index.statuses = [503]
    assert packages.member(packages.open_wheel("a-package", "1.0"), "/header.h").read() == b"int f();"


def test_a_refusal_is_told_without_the_password(index: Index) -> None:
    index.statuses = [403]
    with pytest.raises(IngredientError, match=r"403 .*localhost") as caught:
        packages.open_wheel("a-package", "1.0")
    assert "s3cret" not in str(caught.value)


def test_a_server_that_sends_whole_files_is_refused(index: Index) -> None:
    index.ranges = False
    with pytest.raises(IngredientError, match="whole files only"):
        packages.open_wheel("a-package", "1.0")


def test_a_server_that_sends_more_than_it_is_asked_for_is_refused(index: Index) -> None:
    index.too_much = b"x"
    with pytest.raises(IngredientError, match="other parts of a file"):
        packages.open_wheel("a-package", "1.0")


def test_the_machines_own_authority_is_trusted_for_the_parts_too(
    serve: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path / "localhost.pem")
    put_at(f"https://{serve(Index(), certificate)}/a.whl", monkeypatch)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CERT", str(certificate))
    assert packages.member(packages.open_wheel("a-package", "1.0"), "/header.h").read() == b"int f();"
