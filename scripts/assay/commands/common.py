"""Options that commands share, and the matrix that they name."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from assay import checks, keys
from assay.matrix import Matrix, load
from assay.matrix.row import Row


def add_matrix_options(
    parser: argparse.ArgumentParser, *, out: bool = True, row_help: str = "only this row; may be given more than once"
) -> None:
    """Add `--matrix`, `--row` and, where the command writes, `--out`."""
    parser.add_argument(
        "--matrix",
        type=Path,
        default=Path("matrix.toml"),
        metavar="FILE",
        help="the matrix (default: %(default)s)",
    )
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="ID",
        help=row_help,
    )
    if out:
        add_out(parser)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add `--out`."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build"),
        metavar="DIR",
        help="folder for everything that is written (default: %(default)s)",
    )


def add_judging_options(parser: argparse.ArgumentParser) -> None:
    """Add what commands that judge images share: level, GPU, wheelhouses."""
    parser.add_argument(
        "--level",
        choices=("auto", "image", "gpu"),
        default="auto",
        help="image: what needs no GPU; gpu: all of it; auto (default): gpu where there is one",
    )
    parser.add_argument(
        "--gpu",
        metavar="HOW",
        help="how containers reach the GPU: runtime, cdi, devices or none, or a GPU's index or UUID (default: found)",
    )
    add_wheelhouse(parser, "folder with flash-attn wheels to use before any is downloaded or compiled")


def add_signing_key(parser: argparse.ArgumentParser) -> None:
    """Add `--key` for commands that sign."""
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="private key (PEM) to sign certificates with, as `assay key` makes it; else what the environment "
        f"variable {keys.KEY_VARIABLE} holds; else they stay unsigned",
    )


def add_wheelhouse(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add `--wheelhouse`, which takes only folders that can be read: whoever names one wants it used."""
    parser.add_argument(
        "--wheelhouse",
        type=_readable_folder,
        action="append",
        default=[],
        metavar="DIR",
        help=f"{purpose}; may be given more than once",
    )


def _readable_folder(name: str) -> Path:
    folder = Path(name)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{name} is no folder; make it, or name another")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{name} cannot be read: give yourself leave to, or name another folder")
    return folder


def read_matrix(args: argparse.Namespace) -> tuple[Matrix, tuple[Row, ...]]:
    """Return the matrix that the command line names and the rows that it selects.

    Raises MatrixError with every problem of the file; UsageError for a row that the matrix does not have.
    """
    matrix = load(args.matrix, known_checks=checks.registry())
    return matrix, matrix.select(args.row)


def report_path(path: Path) -> Path:
    """Return the report's own path for a folder that holds it."""
    return path / "report.json" if path.is_dir() else path
