"""Make the sample model: draw cartoon scenes, train the NewBie classes on them at small size, export the weights."""

from . import checkout as checkout  # makes `assay_checks` and `newbie` importable before any other module needs them
