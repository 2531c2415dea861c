"""Every way in which a run can end early, each with its exit code.

Nothing else in the package decides an exit code: `cli.main` turns an `AssayError` into its message and its code, and
the verdicts of the rows into `ExitCode` through `verdict.exit_code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller."""

    AS_EXPECTED = 0
    NOT_AS_EXPECTED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INTERRUPTED = 130


class AssayError(Exception):
    """Something went wrong that the user can act on: the message says what, where, and what to do next."""

    code = ExitCode.INCONCLUSIVE


class UsageError(AssayError):
    """The command line asks for something that does not exist or does not go together."""

    code = ExitCode.USAGE


class MatrixError(AssayError):
    """The matrix file is wrong. Carries every problem of the file, not only the first."""

    code = ExitCode.USAGE

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class EngineError(AssayError):
    """The Docker engine cannot be reached, cannot be started, or died."""


class IngredientError(AssayError):
    """A base image, package, wheel or file that a row needs could not be had, or is not the one that was asked for."""


class BuildFailed(AssayError):
    """A build step exited with an error: the evidence of a `build.<part>` finding.

    part: which part of the image failed (`torch`, `flash-attn`, ...), as named in the Dockerfile's comments.
    step: the instruction that failed.
    log: the last lines that this step itself printed.
    """

    def __init__(self, *, part: str, step: str, log: Sequence[str]) -> None:
        self.part = part
        self.step = step
        self.log = tuple(log)
        super().__init__(f"build step of part {part!r} failed: {step}")


class Cancelled(AssayError):
    """The run was asked to stop, and this part of it did."""

    code = ExitCode.INTERRUPTED


class Busy(AssayError):
    """Another run holds the output folder."""

    code = ExitCode.USAGE


class CertificateError(AssayError):
    """A certificate, signature or key is damaged, forged, missing, or is not what it is said to be."""

    code = ExitCode.NOT_AS_EXPECTED


class Refused(AssayError):
    """Publishing would put something into the registry that the evidence does not support."""

    code = ExitCode.NOT_AS_EXPECTED


class RegistryError(AssayError):
    """A registry cannot be reached, does not let us in, or answered something that makes no sense."""
