"""Addresses as people write them."""

import ipaddress
import re

from launch_async.domain.errors import ConfigError

MAX_PORT = 65535

_ADDRESS = re.compile(r"(?:\[(?P<number>[^\]]+)\]|(?P<name>[\w.-]+)):(?P<port>\d{1,5})", re.ASCII)


def address_of(text: str, name: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; an IPv6 number stands in brackets.

    Raises:
        ConfigError: it is not one.
    """
    found = _ADDRESS.fullmatch(text)
    host = found and (found["name"] or _number(found["number"]))
    if not found or not host or int(found["port"]) > MAX_PORT:
        msg = f"{name} is {text!r}; it must look like 127.0.0.1:8484 or [::1]:8484"
        raise ConfigError(msg)
    return host, int(found["port"])


def _number(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return ""
