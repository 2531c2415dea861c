"""Start, stop or show the Docker engine that assay uses.

It uses the one that DOCKER_HOST, the Docker context or the default socket names. Where none answers, and this is Debian
or Ubuntu and you are root, `start`, and every command that builds, starts a private one from the package `docker.io`;
`stop` stops only that one. Its data lies in the folder that ASSAY_STATE names.
"""

from __future__ import annotations

import argparse

from assay.engine import private
from assay.engine.connect import Engine
from assay.errors import EngineError, ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "action",
        choices=("start", "stop", "status"),
        help="status prints the engine in use, and DOCKER_HOST=... for it",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Do what was asked, and print the engine in use."""
    if args.action == "stop":
        stopped = private.stop()
        print("stopped the private engine" if stopped else "no private engine is running")
        return ExitCode.AS_EXPECTED
    try:
        engine = Engine.connect(start=args.action == "start")
    except EngineError as error:
        if args.action == "start":
            raise
        print(f"no engine: {error}")
        return ExitCode.INCONCLUSIVE
    kind = "private" if engine.private else "yours"
    print(f"Docker Engine {engine.version} ({kind}), BuildKit {'yes' if engine.buildkit else 'no'}")
    print(f"DOCKER_HOST={engine.host}")
    return ExitCode.AS_EXPECTED
