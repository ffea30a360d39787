"""An agent that holds its Lease while it acts, and ends when it has lost it."""

import os
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import structlog

from launch_async.adapters.journals.identity import keep_identity, kept_identity, new_identity
from launch_async.adapters.leases.holder import held_folder
from launch_async.adapters.leases.kubernetes import KubeLease, LeaseLost
from launch_async.compose.kubernetes import kubeconfig_of
from launch_async.config.model import LaunchConfig
from launch_async.wire.kubernetes.cluster import KubeCluster

LOST_EXIT_CODE = 1
"""Not one that asks for a person: whatever restarts the agent shall do so."""
_CALLS_PER_SECOND = 10.0
_LEAST_CALL_SECONDS = 1.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def is_leased(config: LaunchConfig) -> bool:
    """Whether the agent acts only while it holds a Lease."""
    return config.agent.kubernetes is not None and config.agent.kubernetes.lease is not None


@asynccontextmanager
async def held_lease(
    config: LaunchConfig,
    environ: Mapping[str, str],
    *,
    waits: Callable[[str], None],
    end_process: Callable[[int], object] = os._exit,
) -> AsyncGenerator[None, None]:
    """Begin when the configured Lease is ours, if there is one; the state folder has its identity.

    `waits` hears why it is not. When it is lost the block is cancelled; a block that does not end
    before another holder may begin is ended with the process.

    Raises:
        ConfigError, AgentUnfit: the cluster, the Lease or the state folder cannot be used.
        LeaseLost: another agent may act.
    """
    kubernetes = config.agent.kubernetes
    if kubernetes is None or kubernetes.lease is None:
        yield
        return
    section, state_dir = kubernetes.lease, config.state_dir
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(
            held_folder(state_dir, waits=waits, look_seconds=section.renew)
        )
        # A client of its own: no other calls come before a renewal.
        cluster = KubeCluster(
            config_file=kubeconfig_of(kubernetes),
            context=kubernetes.context or None,
            environ=environ,
            calls_per_second=_CALLS_PER_SECOND,
            name="kubernetes lease",
            call_seconds=max(_LEAST_CALL_SECONDS, section.renew),
        )
        stack.push_async_callback(cluster.close)
        lease = KubeLease(
            cluster,
            name=section.name,
            namespace=section.namespace,
            holder=holder.name,
            duration_seconds=section.duration,
            renew_seconds=section.renew,
        )
        known = kept_identity(state_dir)
        identity = await lease.acquire(
            identity=known, otherwise=new_identity(), earlier=holder.earlier, waits=waits
        )
        stack.push_async_callback(lease.release)
        holder.keep()
        if not known:
            keep_identity(state_dir, identity)
        await stack.enter_async_context(_kept(lease, end_process))
        yield


@asynccontextmanager
async def _kept(
    lease: KubeLease, end_process: Callable[[int], object]
) -> AsyncGenerator[None, None]:
    ends: list[threading.Timer] = []

    async def keep() -> None:
        try:
            await lease.keep()
        except LeaseLost as error:
            log.error("lease lost; the agent ends", reason=str(error))
            # A thread, as nothing that blocks the loop may keep it from its end.
            end = threading.Timer(lease.end_seconds / 2, end_process, [LOST_EXIT_CODE])
            end.daemon = True
            ends.append(end)
            end.start()
            raise

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep, name="lease")
            yield
            tasks.cancel_scope.cancel()
    finally:
        for end in ends:
            end.cancel()
