"""CUDA's rule of binary compatibility as one table: the host and the image have code for it, and are held to it."""

from __future__ import annotations

# Architecture of machine code, compute capability of a GPU, whether it runs there.
# Source: CUDA C++ Programming Guide, "Binary Compatibility" and "Feature Set Compiler Targets".
RUNS_ON = [
    ("80", "8.0", True),
    ("80", "8.6", True),
    ("80", "8.9", True),
    ("80", "9.0", False),
    ("86", "8.0", False),
    ("75", "8.0", False),
    ("90", "8.9", False),
    ("90", "9.0", True),
    ("100", "10.3", True),
    ("100", "12.0", False),
    ("120", "10.0", False),
    ("120", "12.1", True),
    # a: that architecture and no other
    ("90a", "9.0", True),
    ("90a", "9.1", False),
    ("100a", "10.0", True),
    ("100a", "10.3", False),
    # f: its family, from that architecture on
    ("100f", "10.0", True),
    ("100f", "10.3", True),
    ("103f", "10.0", False),
    ("100f", "12.0", False),
    ("120f", "12.1", True),
]
