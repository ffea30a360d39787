"""What a registry wants when it says 401: its `WWW-Authenticate` headers, RFC 9110 §11.6.1."""

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a character class
_PARTS = re.compile(
    rf'(?P<name>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s",]+))'
    rf"|(?P<scheme>{_TOKEN})(?=[\s,]|$)"
)


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """One way to log in."""

    scheme: Literal["basic", "bearer"]
    realm: str = ""
    """Of `bearer`: the address that hands out tokens."""
    service: str = ""
    scope: str = ""


def choose_challenge(headers: Iterable[str]) -> Challenge | None:
    """The best way that is offered: tokens, else a password; None: neither."""
    offered: list[tuple[str, dict[str, str]]] = []
    for part in (found for header in headers for found in _PARTS.finditer(header)):
        if part["scheme"]:
            offered.append((part["scheme"].lower(), {}))
        elif offered:
            quoted = part["quoted"]
            value = part["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            offered[-1][1].setdefault(part["name"].lower(), value)
    ways = dict(reversed(offered))  # the first of each
    bearer = ways.get("bearer", {})
    if bearer.get("realm"):
        return Challenge(
            scheme="bearer",
            realm=bearer["realm"],
            service=bearer.get("service", ""),
            scope=bearer.get("scope", ""),
        )
    return Challenge(scheme="basic") if "basic" in ways else None
