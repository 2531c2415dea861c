"""The command `assay`: reads the command line, hands over to one command, and turns its outcome into an exit code."""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
import traceback
from collections.abc import Sequence

from assay import __version__
from assay.errors import AssayError, ExitCode, MatrixError
from assay.streams import outliving_their_readers

# name -> what `assay --help` says of it; the module `assay.commands.<name>` has `add_arguments(parser)`,
# `run(args) -> ExitCode` and a docstring, and is imported only when its command is asked for.
COMMANDS = {
    "plan": "list the rows of the matrix, for people or for GitHub Actions",
    "compose": "write each row's Dockerfile and build context",
    "wheel": "have the rows' flash-attn wheels made once, for other machines to use",
    "matrix": "build, check and judge every row (what `nox -s build-matrix` runs)",
    "check": "judge any image that the engine has, as one row of the matrix",
    "engine": "start, stop or show the Docker engine that assay uses",
    "report": "show the last report again, or merge the reports of parallel jobs",
    "diff": "show what changed between two reports",
    "claims": "measure the claims made about these versions, beside what is true",
    "publish": "push certified images, with certificate, SBOM and provenance",
    "verify": "say whether an image in a registry is certified, for what, and by whom",
    "revoke": "take a certificate back, signed",
    "prune": "list or remove published images that newer ones replace",
    "key": "make a key pair for signing certificates",
}
EPILOG = """\
exit codes: 0 every row as expected; 1 some row not as expected; 2 bad usage or matrix; 3 inconclusive (network, disk,
engine, a check that broke); 130 interrupted. `assay COMMAND --help` tells more."""


class Paragraphs(argparse.HelpFormatter):
    """Fills paragraph by paragraph, as wide as the terminal: argparse makes one of all, or leaves lines too long."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            textwrap.fill(" ".join(paragraph.split()), width, initial_indent=indent, break_on_hyphens=False)
            for paragraph in text.split("\n\n")
        )


def parser(selected: str | None = None) -> argparse.ArgumentParser:
    """Return the command line's parser; only the selected command's own options are filled in, or all without one."""
    root = argparse.ArgumentParser(
        prog="assay",
        description="Build a matrix of CUDA images, prove which combinations work, publish only those.",
        epilog=EPILOG,
        formatter_class=Paragraphs,
    )
    root.add_argument("--version", action="version", version=f"assay {__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        filled = selected is None or name == selected
        module = importlib.import_module(f"assay.commands.{name}") if filled else None
        sub = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__ if module else summary,
            formatter_class=Paragraphs,
        )
        if module:
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; every failure that a user can act on is one message, no traceback."""
    try:
        with outliving_their_readers():
            return _main(list(sys.argv[1:] if arguments is None else arguments))
    except OSError as error:  # of the last words, which wait to be written until there is nothing else to do
        return _trouble(error)


def _main(argv: list[str]) -> int:
    selected = next((word for word in argv if word in COMMANDS), "")
    try:
        args = parser(selected).parse_args(argv)
        return int(args.run(args))
    except MatrixError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        count = len(error.problems)
        print(
            f"assay: {count} problem{'s' if count != 1 else ''} in the matrix; nothing was built",
            file=sys.stderr,
        )
        return int(error.code)
    except AssayError as error:
        print(f"assay: {error}", file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt:
        print(
            "assay: interrupted; what was finished is kept, and the next run goes on from there",
            file=sys.stderr,
        )
        return int(ExitCode.INTERRUPTED)
    except OSError as error:
        return _trouble(error)
    except Exception:
        # Python's own exit code for this, 1, would say that a row came out otherwise than expected.
        traceback.print_exc()
        print("assay: that is a defect of assay; please report the lines above", file=sys.stderr)
        return int(ExitCode.INCONCLUSIVE)


def _trouble(error: OSError) -> int:
    """Say what the machine refused, and return the exit code for it."""
    where = f"{error.filename}: " if error.filename else ""
    print(f"assay: {where}{error.strerror or error}; mend that, and run it again", file=sys.stderr)
    return int(ExitCode.INCONCLUSIVE)
