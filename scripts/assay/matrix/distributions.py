"""What the official images of Linux distributions offer, as far as a row's build depends on it: apt, and which Pythons.

Only names that mean the same to everybody are known: `debian:bookworm`, `ubuntu:22.04`, `nvidia/cuda:*-ubuntu22.04`.
Nothing is said of any other image: one's own, another registry's, a tag that moves on to the next release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class System:
    """The distribution of an image: whether it has apt, and the Pythons that are there or that its apt can install."""

    apt: bool
    pythons: tuple[str, ...]


Pythons = Mapping[str, tuple[str, ...]]
"""Version of the distribution -> its Pythons."""

# Debian's archive has one Python 3 a release (packages python3.X), Ubuntu's `universe` sometimes a second one.
_WITH_APT: Mapping[str, Pythons] = {
    "debian": {"10": ("3.7",), "11": ("3.9",), "12": ("3.11",), "13": ("3.13",)},
    "ubuntu": {
        "18.04": ("3.6", "3.7", "3.8"),
        "20.04": ("3.8", "3.9"),
        "22.04": ("3.10", "3.11"),
        "24.04": ("3.12",),
    },
}

_CODENAMES = {
    "buster": "10",
    "bullseye": "11",
    "bookworm": "12",
    "trixie": "13",
    "bionic": "18.04",
    "focal": "20.04",
    "jammy": "22.04",
    "noble": "24.04",
}

# Distributions with other package managers: the Python that their image holds because dnf 4 is written in it. A version
# that is not named has none that torch is locked for: too old (Enterprise Linux 8 and 9), or none at all. Images
# that call themselves minimal or slim have microdnf, which is no Python: of those nothing is known.
_WITHOUT_APT: Mapping[str, Pythons] = {
    "almalinux": {"10": ("3.12",)},
    "alpine": {},
    "amazonlinux": {},
    "archlinux": {},
    "busybox": {},
    "centos": {},
    "fedora": {"35": ("3.10",), "36": ("3.10",), "37": ("3.11",), "38": ("3.11",), "39": ("3.12",), "40": ("3.12",)},
    "opensuse": {},
    "opensuse/leap": {},
    "opensuse/tumbleweed": {},
    "oraclelinux": {"10": ("3.12",)},
    "rockylinux": {"10": ("3.12",)},
    "ubi": {"10": ("3.12",)},
}

_SMALL = re.compile(r"[-:](?:minimal|micro|slim)\b")

# The ways in which an image's name says which distribution it is.
_NAMES = (
    re.compile(r"(?:docker\.io/)?(?:library/)?(?P<name>[a-z]+|opensuse/[a-z]+)(?::(?P<version>[^-]+).*)?"),
    re.compile(r"(?:docker\.io/)?(?P<name>rockylinux|almalinux)/(?P=name)(?::(?P<version>[^-]+).*)?"),
    re.compile(r"(?:docker\.io/)?redhat/(?P<name>ubi)(?P<version>\d+)(?:[-:].*)?"),
    re.compile(r"(?:docker\.io/)?nvidia/cuda:\S+-(?P<name>[a-z]+)(?P<version>\d[\d.]*)"),
)


def system_of(image: str) -> System | None:
    """Return the distribution that an image's name stands for, None where that is not known for sure.

    >>> system_of("nvidia/cuda:12.1.1-devel-ubuntu22.04")
    System(apt=True, pythons=('3.10', '3.11'))
    """
    name = image.partition("@")[0]
    match = next((match for pattern in _NAMES if (match := pattern.fullmatch(name))), None)
    if match is None:
        return None
    distribution, version = match["name"], match["version"] or ""
    if distribution in _WITHOUT_APT:
        held = _WITHOUT_APT[distribution].get(version.partition(".")[0], ())
        return None if held and _SMALL.search(name) else System(apt=False, pythons=held)
    known = _WITH_APT.get(distribution, {})
    release = _CODENAMES.get(version, version)
    pythons = known.get(release) or known.get(release.partition(".")[0])
    return System(apt=True, pythons=pythons) if pythons else None


# Bases to point to, the most usual first.
_USUAL = ("debian:bookworm", "ubuntu:22.04", "ubuntu:24.04")


def base_with(python: str) -> str | None:
    """Return a usual base that has this Python, None where there is none."""
    return next((base for base in _USUAL if (system := system_of(base)) and python in system.pythons), None)
