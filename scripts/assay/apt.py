"""Reads apt's sources, in both of their forms, as far as they concern Debian itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_KEYRING = "debian-archive-keyring"
_SUITE = re.compile(r"^(?P<name>[a-z]+)(?P<pocket>-security|-updates|/updates)?$")
_RELEASES = {"bullseye", "bookworm", "trixie", "forky", "sid", "stable", "oldstable", "testing"}
_COMPONENTS = {"main", "contrib", "non-free", "non-free-firmware"}
_OFF = {"no", "false", "without", "off", "disable", "0"}  # as apt's StringToBool


@dataclass(frozen=True, kw_only=True)
class AptSource:
    """One `deb` entry: one address, one suite.

    signed_by: path of the keyring that must have signed it, or empty for apt's own trusted ones.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def line(self) -> str:
        """Return the entry in apt's one-line form."""
        options = f" [signed-by={self.signed_by}]" if self.signed_by else ""
        return f"deb{options} {self.uri} {self.suite} {' '.join(self.components)}"

    def for_suite(self, suite: str, components: tuple[str, ...]) -> str:
        """Return the entry's line for another release of the same archive, keeping its pocket (updates, security)."""
        match = _SUITE.match(self.suite)
        pocket = (match["pocket"] or "") if match else ""
        return replace(self, suite=suite + pocket, components=components).line()


def read_sources(folder: Path) -> tuple[AptSource, ...]:
    """Return the Debian entries of `/etc/apt`: `sources.list`, `*.list` and `*.sources`.

    Other archives, disabled entries, source packages, and archives on this machine's disk are left out.
    """
    entries: list[AptSource] = []
    parts = sorted((folder / "sources.list.d").glob("*"))
    for file in [folder / "sources.list", *parts]:
        if file.is_file() and file.suffix in {".list", ".sources"}:
            text = file.read_text(encoding="utf-8", errors="replace")
            read = _deb822 if file.suffix == ".sources" else _one_line
            entries += [entry for entry in read(text) if _is_debian(entry)]
    return tuple(dict.fromkeys(entries))


def _is_debian(source: AptSource) -> bool:
    """Tell whether an entry is Debian's own archive, by its suite and components."""
    match = _SUITE.match(source.suite)
    known = match is not None and match["name"] in _RELEASES
    return known and source.uri.startswith("http") and set(source.components) <= _COMPONENTS


def _one_line(text: str) -> Iterator[AptSource]:
    """Yield the entries of a `.list` file: `deb [options] uri suite component...`."""
    pattern = re.compile(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<rest>.+)$")
    for raw in text.splitlines():
        if match := pattern.match(raw.partition("#")[0].strip()):
            options = dict(word.split("=", 1) for word in (match["options"] or "").split() if "=" in word)
            yield AptSource(
                uri=match["uri"],
                suite=match["suite"],
                components=tuple(match["rest"].split()),
                signed_by=_portable(options.get("signed-by", "")),
            )


def _deb822(text: str) -> Iterator[AptSource]:
    """Yield the entries of a `.sources` file: one for each address and suite of each stanza."""
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace() and name:
                fields[name] += " " + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "").lower() in _OFF:
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield AptSource(
                    uri=uri,
                    suite=suite,
                    components=tuple(fields.get("components", "").split()),
                    signed_by=_portable(fields.get("signed-by", "")),
                )


def _portable(keyring: str) -> str:
    """Keep a keyring that every Debian image has too; others, and inline keys, are this machine's own."""
    return keyring if _KEYRING in keyring else ""
