"""The nearest valid name to one that does not exist, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a person most likely meant, or None when nothing is near.

    >>> nearest("flash-atn", ["flash-attn", "torch"])
    'flash-attn'
    """
    folded = {candidate.casefold(): candidate for candidate in sorted(set(known), reverse=True)}
    # What somebody left unfinished ("12.1" for "12.1.1") counts as nearer than another whole name of similar letters.
    longer = [candidate for candidate in folded if name and candidate.startswith(name.casefold())]
    hits = sorted(longer, key=lambda candidate: (len(candidate), candidate)) or difflib.get_close_matches(
        name.casefold(), folded, n=1, cutoff=0.6
    )
    return folded[hits[0]] if hits else None


def perhaps(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown name: the nearest one, else all that exist."""
    names = sorted(set(known))
    if hit := nearest(name, names):
        return f"perhaps you meant {hit!r}"
    if not names:
        return "none is known"
    return "choose from " + ", ".join(repr(known) for known in names)
