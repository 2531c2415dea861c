"""The sessions that a maintainer types, and that CI runs: `nox -s build-matrix`, `nox -s tests`, `nox -s lint`, ..."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True

PYTHON_FILES = ("scripts", "docker", "tests", "noxfile.py", ".github")
SHELL_FILES = (".ci/run", ".github/install.sh", "examples/gpu-host/*.sh", "tests/gpu/*.sh")


def _assay(session: nox.Session, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
    """Run the command `assay` from this checkout."""
    session.install("-q", "-e", ".")
    session.run("assay", *arguments, success_codes=list(codes))


@nox.session(name="build-matrix")
def build_matrix(session: nox.Session) -> None:
    """Build every row's image, check it, and certify or reject it. Arguments go to `assay matrix`."""
    _assay(session, "matrix", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Have the rows' flash-attn wheels made once, for other machines. Arguments go to `assay wheel`."""
    _assay(session, "wheel", *session.posargs)


@nox.session
def plan(session: nox.Session) -> None:
    """Show the rows and what is expected of them. Arguments go to `assay plan`."""
    _assay(session, "plan", *session.posargs)


@nox.session
def report(session: nox.Session) -> None:
    """Show the last report again, or merge several. Arguments go to `assay report`."""
    _assay(session, "report", *session.posargs)


@nox.session
def publish(session: nox.Session) -> None:
    """Publish the certified images. Arguments go to `assay publish`."""
    _assay(session, "publish", *session.posargs)


@nox.session
def claims(session: nox.Session) -> None:
    """Measure the claims made about these versions. Arguments go to `assay claims`."""
    _assay(session, "claims", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that need no engine; `nox -s tests -- tests/engine` runs those that do."""
    session.install("-q", "-e", ".[test]")
    session.run("pytest", *(session.posargs or ["tests/unit"]))


@nox.session(name="runtime-tests")
def runtime_tests(session: nox.Session) -> None:
    """Run the tests of what is baked into images, with the torch and the packages that images get (5 GB)."""
    locks = Path("docker/locks/torch-2.4.0-cu121")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for lock in ("torch", "runtime"):
        session.install("-q", "--no-deps", "--require-hashes", "-r", str(locks / f"{lock}-py{python}.txt"))
    session.install("-q", "-e", ".[test]")
    session.run("pytest", *(session.posargs or ["tests/runtime", "tests/unit/test_gpu_checks_attention.py"]))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, workflows and every Dockerfile that the matrices compose."""
    session.install("-q", "-e", ".[test,lint]")
    session.run("ruff", "format", "--check", *PYTHON_FILES)
    session.run("ruff", "check", *PYTHON_FILES)
    session.run("mypy")
    session.run("shellcheck", *sorted(str(path) for pattern in SHELL_FILES for path in Path().glob(pattern)))
    workflows = sorted(str(path) for path in Path(".github/workflows").glob("*.yml"))
    session.run("actionlint", *workflows)
    session.run("zizmor", "--offline", *workflows)
    for matrix in sorted([*Path().glob("matrix*.toml"), *Path("examples").rglob("matrix*.toml")]):
        out = Path(session.create_tmp(), *matrix.with_suffix("").parts)
        session.run("assay", "compose", "--matrix", str(matrix), "--out", str(out))
        session.run(
            "hadolint",
            "--config",
            ".hadolint.yaml",
            *sorted(str(path) for path in out.glob("*/Dockerfile")),
        )


@nox.session
def benchmark(session: nox.Session) -> None:
    """Time pictures on a GPU, flash-attn beside SDPA. Arguments go to scripts/benchmark_drawing.py: --image TAG."""
    session.install("-q", "-e", ".")
    session.run("python", "scripts/benchmark_drawing.py", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Write the hash-pinned requirement files that are named (`-- publish.txt`), or all; `-- --help` tells more."""
    session.install("-q", "-e", ".", "uv")
    session.run("python", "-m", "assay.locks", *session.posargs)
