"""Keeps passwords out of what is shown and written down: logs, reports, certificates, messages.

Proxies and package indexes carry theirs in the address, `https://user:password@host/`. What a build step prints is not
ours to choose, so the addresses in it are masked, and besides them the passwords of this machine wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

MASK = "****"

# User and password, or a token alone, up to the last `@` before the path.
_USERINFO = re.compile(r"(?P<scheme>\b(?:https?|ftp|socks\w*)://)[^\s/?#]*@", re.IGNORECASE)

# A shorter word by itself may stand anywhere by chance: to mask it would spoil the evidence of checks.
_LONG_ENOUGH = 8


def without_passwords(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text with user and password of every address masked, and with every one of the secrets.

    >>> without_passwords("cannot reach https://bob:s3cret@index.example/simple")
    'cannot reach https://****@index.example/simple'
    """
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def has_userinfo(address: str) -> bool:
    """Tell whether an address names a user, a password or a token."""
    return _USERINFO.match(address) is not None


def secrets_of(addresses: Iterable[str]) -> frozenset[str]:
    """Return what must not be shown of addresses: `user:password`, and the password or token by itself.

    Each as it is written and as it is meant: programs print either. Short ones are masked in addresses alone
    (`_USERINFO`): by themselves they stand in words that have nothing to do with them, and evidence that is searched
    for a pattern would change.
    """
    found: set[str] = set()
    for address in addresses:
        userinfo = _netloc(address).rpartition("@")[0]
        user, _, password = userinfo.partition(":")
        words = {password or user, unquote(password or user)}
        found |= {word for word in words if len(word) >= _LONG_ENOUGH}
        if password:
            found |= {pair for pair in (userinfo, f"{unquote(user)}:{unquote(password)}") if len(pair) >= _LONG_ENOUGH}
    return frozenset(found)


def _netloc(address: str) -> str:
    """Return user and host of an address; proxies are often written without the scheme."""
    try:
        return urlsplit(address if "://" in address else f"http://{address}").netloc
    except ValueError:  # no address at all, such as an unfinished IPv6 host
        return ""
