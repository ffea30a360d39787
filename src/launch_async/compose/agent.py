"""Builds an agent from its configuration and login."""

import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import structlog

from launch_async.adapters.bundles.folder import BundleFolder
from launch_async.adapters.journals.identity import held_identity, kept_identity
from launch_async.adapters.journals.pauses import PauseFile
from launch_async.adapters.journals.sqlite import SqliteJournal
from launch_async.adapters.queues.claims import WandbClaims
from launch_async.adapters.queues.requeues import WandbRequeues
from launch_async.adapters.queues.resource_configs import WandbQueueConfigs
from launch_async.adapters.queues.wandb import OWN_VERSION, WandbQueueService, default_entity
from launch_async.adapters.sources.git import GitCode
from launch_async.adapters.sources.wandb import WandbJobStore
from launch_async.agent.agent import SLOW_SECONDS, Agent
from launch_async.agent.retention import Retention
from launch_async.agent.table import Table
from launch_async.agent.timeouts import timeouts_of
from launch_async.agent.tools import Tools
from launch_async.agent.warnings import Warnings
from launch_async.compose.backends import keep_of, open_targets
from launch_async.compose.lease import is_leased
from launch_async.config.login import Login
from launch_async.config.model import LaunchConfig
from launch_async.config.sources import NO_QUEUE, http_timeout_seconds
from launch_async.domain.errors import ConfigError, Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.kit.files import write_atomically
from launch_async.kit.slow import said_when_slow
from launch_async.wire.lanes import OPEN_SECONDS, Lanes
from launch_async.wire.network import ca_file_of
from launch_async.wire.operations import LAUNCH_PROJECT
from launch_async.wire.transport import CALL_TIMEOUT_SECONDS, Transport

RETRY_SECONDS = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@asynccontextmanager
async def open_agent(
    config: LaunchConfig,
    login: Login,
    environ: Mapping[str, str],
    *,
    read_config: Callable[[], LaunchConfig] | None = None,
) -> AsyncGenerator[Agent, None]:
    """An agent that is ready to run; resources close in the reverse order of their opening.

    `read_config` gives the configuration anew at a reload.

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
                lanes=Lanes.guarded(
                    per_second=config.agent.calls_per_second,
                    burst=config.agent.burst,
                    open_seconds=min(OPEN_SECONDS, config.agent.poll),
                ),
            )
        )
        entity = config.entity or await _own_entity(transport, state_dir / "entity")
        if is_leased(config):  # the Lease says who has it, here and on other machines
            identity = kept_identity(state_dir)
        else:
            identity = stack.enter_context(held_identity(state_dir))
        service = WandbQueueService(
            transport,
            queues=[QueueRef(entity, LAUNCH_PROJECT, queue.name) for queue in queues],
            hostname=config.agent.name or socket.gethostname(),
            agent_config={**_shown(config), "entity": entity, "identity": identity},
            version=environ.get("WANDB_AGENT_VERSION") or OWN_VERSION,
        )
        jobs = WandbJobStore(transport, GitCode(config.agent.git, environ=environ))
        limits = config.agent.retention
        slots = anyio.CapacityLimiter(config.agent.builds)
        backends = await stack.enter_async_context(
            open_targets(
                config,
                jobs,
                environ=environ,
                ca_file=ca_file_of(environ),
                slots=slots,
                identity=identity,
            )
        )
        table = Table(journal)
        bundles = BundleFolder(state_dir, keep_of(limits.bundles_days, limits.bundles_mb))
        warnings = Warnings(service, agent_key=login.api_key, retry_seconds=RETRY_SECONDS)
        retention = Retention({"bundles": bundles, **backends.stores}, open_runs=table.run_ids)
        tools = Tools(
            table=table,
            queue=service,
            presence=service,
            runs=service,
            claims=WandbClaims(transport),
            jobs=jobs,
            targets=backends.targets,
            builds=slots,
            identity=identity,
            base_url=login.base_url,
            api_key=login.api_key,
            backends=[transport.lanes],
            retry_seconds=RETRY_SECONDS,
            patience_seconds=config.agent.patience,
            configs=WandbQueueConfigs(transport),
            secure_mode=config.secure_mode,
            require_run_key=config.agent.require_run_key,
            macros={name: environ[name] for name in config.agent.macros if name in environ},
            stop_grace_seconds=config.stopped_run_timeout,
            timeouts=timeouts_of(config),
            item_retries=config.agent.item_retries,
            requeues=WandbRequeues(transport, service),
            bundles=bundles,
            pauses=PauseFile(state_dir),
            warnings=warnings,
            services={
                "warnings": warnings.serve,
                "retention": retention.serve,
                **backends.services,
            },
            orphan_grace_seconds=config.agent.orphans.grace,
            end_orphans=config.agent.orphans.action == "end",
        )
        yield Agent(
            tools,
            config=config,
            entity=entity,
            read_config=read_config,
        )


async def _own_entity(transport: Transport, path: Path) -> str:
    """The login's entity. While the service is down an earlier answer serves: runs wait for us."""
    say = partial(log.warning, "waiting for the service", address=transport.base_url)
    with said_when_slow(say, after_seconds=SLOW_SECONDS):
        return await _asked_entity(transport, path)


async def _asked_entity(transport: Transport, path: Path) -> str:
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
