"""Names of the world that lead to servers of a test."""

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from scripted_registry import Site


class Places(AbstractResolver):
    """Each name is one server, whatever port is asked for; other names are nowhere."""

    def __init__(self, places: Mapping[str, Site]) -> None:
        self._places = places

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in self._places:
            raise OSError(None, "no such name in this test")
        address, _, real_port = self._places[host].host.rpartition(":")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=int(real_port),
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        pass


def session_where(places: Mapping[str, Site], ca_file: Path) -> aiohttp.ClientSession:
    """A session for which these names are these servers, with certificates of this CA."""
    tls = ssl.create_default_context(cafile=str(ca_file))
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=Places(places), ssl=tls, use_dns_cache=False)
    )
