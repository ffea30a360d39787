"""Addresses as people write them."""

from launch_async.domain.errors import ConfigError


def address_of(text: str, name: str) -> tuple[str, int]:
    """Host and port of HOST:PORT.

    Raises:
        ConfigError: it is not one.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        msg = f"{name} is {text!r}; it must look like 127.0.0.1:8484"
        raise ConfigError(msg)
    return host.strip("[]"), int(port)
