"""Works out how many bytes images share: the engine tells layers and sizes, but not which size is which layer's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Instructions that change the image's configuration only. `#(nop)` is how the classic builder writes them.
NO_LAYER = re.compile(
    r"^(/bin/sh -c #\(nop\)\s+)?"
    r"(ARG|CMD|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|SHELL|STOPSIGNAL|USER|VOLUME)\b"
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: its content's digest and its unpacked size in bytes."""

    diff_id: str
    size: int


def layers_of(history: Sequence[Mapping[str, Any]], diff_ids: Sequence[str]) -> list[Layer]:
    """Match an image's layers to the sizes in its history (as the engine returns it: newest first).

    An entry of size 0 may be a layer without files or none at all. Such entries are left out, the latest first, until
    as many are left as there are layers; a wrong guess moves sizes by one layer between two such entries, no further.
    """
    oldest_first = reversed(history)
    entries = [entry for entry in oldest_first if entry["Size"] or not NO_LAYER.match(entry.get("CreatedBy") or "")]
    surplus = len(entries) - len(diff_ids)
    for entry in [entry for entry in reversed(entries) if not entry["Size"]][: max(0, surplus)]:
        entries.remove(entry)
    sizes = [int(entry["Size"]) for entry in entries]
    # An import or a squashed image may tell less history than it has layers: what is known stays with the base.
    sizes += [0] * (len(diff_ids) - len(sizes))
    return [Layer(diff_id=diff_id, size=size) for diff_id, size in zip(diff_ids, sizes, strict=False)]


def together(stacks: Sequence[Sequence[Layer]]) -> int:
    """Return the bytes that stacks of layers take in one engine.

    An engine stores a layer once for each stack of layers below it: equal layers on different bases are two.
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for stack in stacks:
        chain: tuple[str, ...] = ()
        for layer in stack:
            chain = (*chain, layer.diff_id)
            if chain not in seen:
                seen.add(chain)
                total += layer.size
    return total
