"""The real control plane in this process, for tests of what talks to it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from launch_async.domain.secret import Secret
from launch_async.sdk.client import LaunchClient
from launch_async.server.app import listening
from launch_async.server.services import Services, open_services
from launch_async.server.settings import Settings
from launch_async.server.users import create_api_key, create_user
from launch_async.wire.transport import Transport

ENTITY = "tester"


class RealServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that listens, and a client of its one user."""

    url: str
    key: Secret[str]
    transport: Transport
    client: LaunchClient
    services: Services


@asynccontextmanager
async def real_server(data_dir: Path, *, port: int = 0) -> AsyncGenerator[RealServer]:
    """Serve from a new folder on the loopback while the block lasts."""
    settings = Settings(data_dir=data_dir, port=port, shutdown_seconds=0.1)
    services = await open_services(settings)
    try:
        async with services.store.write() as connection:
            user = await create_user(connection, ENTITY, email="t@example.com", admin=True)
            key = Secret(await create_api_key(connection, user, "tests"))
        async with (
            listening(services, settings) as url,
            Transport.open(base_url=url, api_key=key, max_tries=2) as transport,
        ):
            yield RealServer(
                url=url,
                key=key,
                transport=transport,
                client=LaunchClient(transport, entity=ENTITY),
                services=services,
            )
    finally:
        await services.close()
