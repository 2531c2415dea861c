"""Runs `python -m assay` as the command `assay`."""

import sys

from assay.cli import main

sys.exit(main())
