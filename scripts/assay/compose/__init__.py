"""From a row to a Dockerfile and the folder that it is built from.

`compose()` is a function of the row, the wheel, the releases table and the files under `docker/`: the same inputs give
the same bytes. Only the context's `network/` folder differs from machine to machine, and no byte of it enters an image.
"""

from assay.compose.compose import Composed, compose
from assay.compose.parts import part_of_line, parts_of

__all__ = ["Composed", "compose", "part_of_line", "parts_of"]
