"""One file per command: `add_arguments(parser)`, `run(args) -> ExitCode`, and a docstring that `--help` shows."""
