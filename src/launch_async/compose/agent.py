"""Builds an agent from its configuration and login."""

import socket
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import structlog

from launch_async.adapters.journals.sqlite import SqliteJournal
from launch_async.adapters.queues.resource_configs import WandbQueueConfigs
from launch_async.adapters.queues.claims import WandbClaims
from launch_async.adapters.queues.wandb import OWN_VERSION, WandbQueueService, default_entity
from launch_async.adapters.sources.wandb import WandbJobStore
from launch_async.agent.admission import QueueLimit
from launch_async.agent.agent import Agent
from launch_async.agent.table import Table
from launch_async.agent.tools import Tools
from launch_async.compose.backends import open_targets
from launch_async.config.login import Login
from launch_async.config.model import LaunchConfig
from launch_async.config.sources import NO_QUEUE, http_timeout_seconds
from launch_async.domain.errors import AgentUnfit, ConfigError, Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.kit.files import write_atomically
from launch_async.wire.operations import LAUNCH_PROJECT
from launch_async.wire.transport import CALL_TIMEOUT_SECONDS, Transport, ca_file_of

RETRY_SECONDS = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@asynccontextmanager
async def open_agent(
    config: LaunchConfig, login: Login, environ: Mapping[str, str]
) -> AsyncGenerator[Agent, None]:
    """An agent that is ready to run; resources close in the reverse order of their opening.

    Raises:
        ConfigError: no queue is named, or a variable is not what it must be.
        AgentUnfit: the state folder or the login cannot be used.
    """
    queues = config.queue_configs()
    if not queues:
        raise ConfigError(NO_QUEUE)
    state_dir = config.state_dir
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(SqliteJournal.open(state_dir))
        transport = await stack.enter_async_context(
            Transport.open(
                base_url=login.base_url,
                api_key=login.api_key,
                ca_file=ca_file_of(environ),
                call_timeout_seconds=http_timeout_seconds(environ) or CALL_TIMEOUT_SECONDS,
            )
        )
        entity = config.entity or await _own_entity(transport, state_dir / "entity")
        limits = [
            QueueLimit(QueueRef(entity, LAUNCH_PROJECT, queue.name), queue.max_jobs)
            for queue in queues
        ]
        identity = _identity(state_dir)
        service = WandbQueueService(
            transport,
            queues=[limit.ref for limit in limits],
            hostname=config.agent.name or socket.gethostname(),
            agent_config={**_shown(config), "entity": entity, "identity": identity},
            version=environ.get("WANDB_AGENT_VERSION") or OWN_VERSION,
        )
        jobs = WandbJobStore(transport)
        targets = await stack.enter_async_context(open_targets(state_dir, jobs))
        tools = Tools(
            table=Table(journal),
            queue=service,
            presence=service,
            runs=service,
            claims=WandbClaims(transport),
            jobs=jobs,
            targets=targets,
            builds=anyio.CapacityLimiter(config.agent.builds),
            identity=identity,
            base_url=login.base_url,
            api_key=login.api_key,
            retry_seconds=RETRY_SECONDS,
            configs=WandbQueueConfigs(transport),
            secure_mode=config.secure_mode,
            require_run_key=config.agent.require_run_key,
            macros={name: environ[name] for name in config.agent.macros if name in environ},
            stop_grace_seconds=config.stopped_run_timeout,
            start_timeout_seconds=config.agent.start_timeout,
            orphan_grace_seconds=config.agent.orphans.grace,
            end_orphans=config.agent.orphans.action == "end",
        )
        yield Agent(
            tools,
            queues=limits,
            max_jobs=config.max_jobs,
            poll_seconds=config.agent.poll,
            heartbeat_seconds=config.agent.heartbeat,
            grace_seconds=config.agent.grace,
        )


async def _own_entity(transport: Transport, path: Path) -> str:
    """The login's entity. While the service is down an earlier answer serves: runs wait for us."""
    earlier = _kept(path)
    while True:
        try:
            entity = await default_entity(transport)
        except Unavailable as error:
            log.warning("the service does not answer yet", reason=str(error))
            if earlier:
                return earlier
            await anyio.sleep(RETRY_SECONDS)
        else:
            write_atomically(path, entity.encode())
            return entity


def _kept(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _shown(config: LaunchConfig) -> dict[str, object]:
    """What the service shows of the configuration."""
    shown: dict[str, object] = {
        "queues": [queue.name for queue in config.queue_configs()],
        "max_jobs": config.max_jobs,
        "max_schedulers": config.max_schedulers,
        "verbosity": config.verbosity,
    }
    return shown


def _identity(state_dir: Path) -> str:
    """What stays the same over all lives with this state folder; the journal's lock guards it."""
    path = state_dir / "identity"
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex.encode())
    identity = path.read_text().strip()
    if not identity:
        msg = f"{path} is empty; restore it, or delete it to start as a new agent"
        raise AgentUnfit(msg)
    return identity
