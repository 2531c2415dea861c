"""What a failed build step's own output says of why it failed, in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence

# The engine's summary of a failed step (BuildKit before and after 0.10, the classic builder): it repeats the command.
ENGINE_WORDS = re.compile(
    r"executor failed running|process \".*\" did not complete|The command '.*' returned a non-zero"
)

# In the words of apt, curl, pip, uv, Python and OpenSSL, the most telling first. Installers go on after them and end on
# what only follows: apt, say, on a package that it cannot find in lists that it could not fetch.
NO_NETWORK = (
    re.compile(
        r"connection (refused|reset|timed out)|(could|cannot|can't|unable to) (not )?(connect|resolve)|timed out"
        r"|temporary failure|name or service not known|network is unreachable|no route to host"
        r"|certificate verif|self[- ]signed certificate|proxy authentication",
        re.IGNORECASE,
    ),
    re.compile(r"failed to (fetch|download)", re.IGNORECASE),
)


def cause(log: Sequence[str]) -> str:
    """Return a failed step's last line, and before it the line that tells of a network that did not answer, if any.

    log: what the step printed, and the engine's words on it. Empty when the step printed nothing.
    """
    lines = [line.strip() for line in log if line.strip() and not ENGINE_WORDS.match(line.strip())]
    if not lines:
        return ""
    for pattern in NO_NETWORK:
        if trouble := next((line for line in reversed(lines) if pattern.search(line)), None):
            return trouble if trouble == lines[-1] else f"{trouble}; in the end: {lines[-1]}"
    return lines[-1]
