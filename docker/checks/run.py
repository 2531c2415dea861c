"""Run the checks of one image, inside it: `python /opt/assay/checks/run.py`. Standard library only, Python 3.9+.

Python puts this file's folder first on `sys.path`, where `packages.py` or `sample.py` would hide libraries of that
name from the code under test. The folder is therefore taken off before anything else is imported, and loaded as the
package `checks`.
"""

import os  # already imported by Python itself, as is sys
import sys

HERE = os.path.realpath(__file__).rpartition("/")[0]
sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != HERE]
sys.dont_write_bytecode = True

import importlib.util  # noqa: E402  (sys.path had to be put right first)


def load_package() -> None:
    """Make this folder importable as `checks`."""
    spec = importlib.util.spec_from_file_location("checks", f"{HERE}/__init__.py", submodule_search_locations=[HERE])
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load the checks from {HERE}")
    package = importlib.util.module_from_spec(spec)
    sys.modules["checks"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_package()
    sys.exit(importlib.import_module("checks.runner").main(__file__, sys.argv[1:]))
