"""Control plane and agent in one process: the embedded default."""

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from launch_async.agent.agent import Agent
from launch_async.compose.agent import open_agent
from launch_async.compose.server import KEY_FILE, LOCAL_USER, local_key, open_server
from launch_async.config.admin import find_agent_token
from launch_async.config.login import Login
from launch_async.config.model import AgentSection, LaunchConfig, QueueConfig
from launch_async.domain.errors import cannot_listen
from launch_async.domain.secret import Secret
from launch_async.kit.files import write_atomically
from launch_async.sdk.client import LaunchClient
from launch_async.server.app import serve
from launch_async.server.services import Services
from launch_async.server.settings import Settings
from launch_async.wire.transport import Transport

TOKEN_FILE = "admin-token"  # noqa: S105 - the name of one
PROCESS_QUEUE = "process"
DOCKER_QUEUE = "docker"
QUICK_METRICS = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
"""The client sends metrics every 15 s by default; on loopback every second costs nothing."""

PROCESS_JOBS = 4
DOCKER_JOBS = 4


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """A running control plane with an agent that is ready to run."""

    url: str
    key_file: Path
    api_key: Secret[str]
    token_file: Path
    admin_token: Secret[str]
    """What changes over the agent's admin endpoint need."""
    agent: Agent
    client: LaunchClient


@asynccontextmanager
async def embedded(
    settings: Settings, *, admin: str, environ: Mapping[str, str]
) -> AsyncGenerator[Embedded, None]:
    """Serve while the block runs; the caller runs the agent.

    Raises:
        ConfigError: the folder or the address cannot be used.
        AgentUnfit: another agent holds the folder.
    """
    async with open_server(settings) as services, anyio.create_task_group() as tasks:
        key = await local_key(services, settings.data_dir)
        url = await tasks.start(_serve, services, settings)
        login = Login(base_url=url, api_key=key)
        async with (
            Transport.open(base_url=url, api_key=key) as transport,
            open_agent(_config(settings.data_dir, admin), login, environ) as agent,
        ):
            client = LaunchClient(transport, entity=LOCAL_USER)
            environment = {"env": QUICK_METRICS}
            await client.upsert_queue(PROCESS_QUEUE, resource="local-process", config=environment)
            containers = {"env": [f"{name}={value}" for name, value in QUICK_METRICS.items()]}
            await client.upsert_queue(DOCKER_QUEUE, resource="local-container", config=containers)
            yield Embedded(
                url=url,
                key_file=settings.data_dir / KEY_FILE,
                api_key=key,
                token_file=settings.data_dir / TOKEN_FILE,
                admin_token=_admin_token(settings.data_dir),
                agent=agent,
                client=client,
            )
        tasks.cancel_scope.cancel()


async def _serve(
    services: Services,
    settings: Settings,
    *,
    task_status: anyio.abc.TaskStatus[str],
) -> None:
    try:
        await serve(services, settings, started=task_status.started)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        raise cannot_listen(address, error, "--port") from error


def _admin_token(data_dir: Path) -> Secret[str]:
    """Kept in the data folder for its owner only; made on the first start."""
    path = data_dir / TOKEN_FILE
    made = Secret(secrets.token_hex(32))
    if path.exists():
        return find_agent_token(path, {}) or made
    write_atomically(path, f"{made.reveal()}\n".encode())
    return made


def _config(data_dir: Path, admin: str) -> LaunchConfig:
    return LaunchConfig(
        queues=(
            QueueConfig(name=PROCESS_QUEUE, max_jobs=PROCESS_JOBS),
            QueueConfig(name=DOCKER_QUEUE, max_jobs=DOCKER_JOBS),
        ),
        entity=LOCAL_USER,
        max_jobs=-1,
        agent=AgentSection(state_dir=str(data_dir / "agent"), admin=admin, poll=1.0, heartbeat=2.0),
    )
