"""Keeps a private engine from taking the machine's `docker0` away.

An engine that is told to have no bridge removes the device named `docker0`, another engine's or not. Where that
exists, the private engine gets a bridge of its own instead. Nothing is ever connected to it.
"""

from __future__ import annotations

import fcntl
import socket
from contextlib import suppress
from pathlib import Path

DEFAULT_BRIDGE = "docker0"
OWN_BRIDGE = "assay0"
# Requests from <linux/sockios.h>.
SIOCSIFFLAGS = 0x8914
SIOCBRADDBR = 0x89A0
SIOCBRDELBR = 0x89A1


def for_private_engine() -> str:
    """Return the private engine's setting for `bridge`, making its own bridge where one is needed."""
    if not _exists(DEFAULT_BRIDGE):
        return "none"
    if not _exists(OWN_BRIDGE):
        _request(SIOCBRADDBR, OWN_BRIDGE)
    return OWN_BRIDGE


def remove() -> None:
    """Remove the private engine's own bridge, if it has one."""
    if _exists(OWN_BRIDGE):
        with suppress(OSError):  # one that stays is no harm: the next start takes it as it is
            _request(SIOCSIFFLAGS, OWN_BRIDGE)  # all flags 0: down, since the kernel keeps a bridge that is up
            _request(SIOCBRDELBR, OWN_BRIDGE)


def _exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _request(number: int, name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as control:
        # struct ifreq: 16 bytes of name, 24 bytes that SIOCSIFFLAGS reads the flags from and the others ignore
        fcntl.ioctl(control, number, name.encode().ljust(40, b"\0"))
