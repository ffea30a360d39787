"""Launch agents: registered, seen, and asked to stop."""

import secrets
import string
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Integer, Select, bindparam, case, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.domain.lease import SILENCE
from launch_async.server.agent_configs import read_config
from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.ids import decode_number
from launch_async.server.projects import ProjectRow
from launch_async.server.queues import find_queues, no_queue
from launch_async.server.store.engine import insert
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.people import entities, users
from launch_async.server.store.tables.queues import launch_agent_queues, launch_agents, run_queues
from launch_async.server.store.tables.runs import projects
from launch_async.server.store.tables.texts import in_order

AGENT: Final = "LaunchAgent"
POLLING: Final = "POLLING"
KILLED: Final = "KILLED"
STATUSES: Final = (POLLING, "RUNNING", KILLED)
NAME_ALPHABET: Final = string.ascii_lowercase + string.digits
NAME_LENGTH: Final = 8
MAX_AGENTS: Final = 500  # every start of an agent leaves one; people look at the newest


class AgentQueue(msgspec.Struct, frozen=True):
    """One queue that an agent polls."""

    id: int
    name: str


class AgentRow(msgspec.Struct, frozen=True):
    """An agent as it was last seen."""

    queues: tuple[AgentQueue, ...]
    id: int
    entity_name: str
    name: str
    hostname: str
    version: str | None
    config: str | None
    status: str
    stop_polling: bool
    created_by: str | None
    created_at: datetime
    heartbeat_at: datetime

    def online(self, now: datetime) -> bool:
        """Tell whether the agent takes items, as far as it was heard."""
        return self.status != KILLED and self.heartbeat_at >= now - SILENCE


class Poll(msgspec.Struct, frozen=True):
    """A queue that is asked for an item, and the agent that asks, if it says which one it is."""

    queue_id: int
    paused_at: datetime | None
    concurrency_limit: int | None
    agent_id: int | None = None
    agent_entity: str | None = None
    stop_polling: bool | None = None
    heartbeat_at: datetime | None = None


async def register_agent(
    connection: AsyncConnection,
    request: Request,
    project: ProjectRow,
    *,
    queue_ids: Sequence[str],
    hostname: str,
    config: str | None,
    version: str | None,
) -> int:
    """Store an agent and return its row id; every queue must be of the same entity.

    One with an identity that is known here is the same agent again: what it had claimed is its own.
    """
    about = read_config(config)
    numbers: set[int] = set()
    for queue_id, queue in (await find_queues(connection, request, queue_ids)).items():
        if queue is None or queue.entity_id != project.entity_id:
            raise ApiError(
                f"queue {queue_id!r} is not a queue of entity {project.entity_name!r}; "
                "start the agent again with queues of that entity",
                status=404,
            )
        numbers.add(queue.id)
    if not numbers:
        raise ApiError("an agent needs at least one queue to poll")
    now = request.now()
    values = {
        "hostname": hostname[:256],
        "version": None if version is None else version[:64],
        "config": about.shown,
        "status": POLLING,
        "stop_polling": False,
        "created_by": request.viewer.user_id,
        "heartbeat_at": now,
    }
    agent_id = None
    while agent_id is None:  # a taken name is as likely as a lottery win
        if about.identity is not None:
            agent_id = await _take_up(connection, request, project, about.identity, values)
        if agent_id is None:
            new = {"project_id": project.id, "identity": about.identity, "created_at": now}
            agent_id = await _insert_agent(connection, {**values, **new})
    await connection.execute(
        delete(launch_agent_queues).where(launch_agent_queues.c.agent_id == agent_id)
    )
    await connection.execute(
        insert(connection, launch_agent_queues),
        [{"agent_id": agent_id, "queue_id": number} for number in sorted(numbers)],
    )
    return agent_id


async def find_agent(
    connection: AsyncConnection, request: Request, agent_id: str
) -> AgentRow | None:
    """Return an agent by its opaque id, or None when it is missing or not the viewer's to see."""
    try:
        number = decode_number(agent_id, AGENT)
    except ApiError:
        return None
    found = await _agents(connection, launch_agents.c.id == number)
    return found[0] if found and found[0].entity_name in request.viewer.entities else None


async def read_poll(
    connection: AsyncConnection,
    request: Request,
    *,
    entity: str,
    project: str,
    queue: str,
    agent_id: str | None,
) -> Poll:
    """Return as much of a queue and of an agent as a pop needs; a 404 says what to do without one.

    The caller checks that the viewer may see the entity.
    """
    number = None if agent_id is None else _number(agent_id)
    asked = {"entity": entity, "project": project.casefold(), "queue": queue, "agent": number}
    row = (await connection.execute(POLL, asked)).one_or_none()
    if row is None:
        raise no_queue(entity, queue)
    poll = Poll(*row)
    if agent_id is not None and poll.agent_entity not in request.viewer.entities:
        raise ApiError("this agent is not known here; start it again", status=404)
    return poll


async def agents_of_project(connection: AsyncConnection, project_id: int) -> list[AgentRow]:
    """Return a project's agents, the last seen first."""
    return await _agents(connection, launch_agents.c.project_id == project_id)


async def agents_of_queue(connection: AsyncConnection, queue_id: int) -> list[AgentRow]:
    """Return the agents that poll a queue, the last seen first."""
    polled = select(launch_agent_queues.c.agent_id).where(
        launch_agent_queues.c.queue_id == queue_id
    )
    return await _agents(connection, launch_agents.c.id.in_(polled))


async def set_status(
    connection: AsyncConnection, agent_id: int, status: str | None, *, now: datetime
) -> None:
    """Note what an agent says of itself. KILLED stays: its last jobs still report afterwards."""
    values: dict[str, Any] = {"heartbeat_at": now}
    if status is not None:
        values["status"] = case((launch_agents.c.status == KILLED, KILLED), else_=status)
    await connection.execute(
        update(launch_agents).where(launch_agents.c.id == agent_id).values(values)
    )


async def stop_agent(connection: AsyncConnection, agent_id: int) -> None:
    """Ask an agent to take no more items."""
    await connection.execute(
        update(launch_agents).where(launch_agents.c.id == agent_id).values(stop_polling=True)
    )


def _number(agent_id: str) -> int:
    try:
        return decode_number(agent_id, AGENT)
    except ApiError:
        return 0


def _poll_select() -> Select[*tuple[Any, ...]]:
    place, owner = projects.alias(), entities.alias()
    agent = launch_agents.join(place, place.c.id == launch_agents.c.project_id).join(
        owner, owner.c.id == place.c.entity_id
    )
    return (
        select(
            run_queues.c.id,
            run_queues.c.paused_at,
            run_queues.c.concurrency_limit,
            launch_agents.c.id.label("agent_id"),
            owner.c.name.label("agent_entity"),
            launch_agents.c.stop_polling,
            launch_agents.c.heartbeat_at,
        )
        .select_from(run_queues)
        .join(projects, projects.c.id == run_queues.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .outerjoin(agent, launch_agents.c.id == bindparam("agent", type_=Integer))
        .where(
            entities.c.name == bindparam("entity"),
            projects.c.name_folded == bindparam("project"),
            run_queues.c.name == bindparam("queue"),
        )
    )


POLL: Final = often(_poll_select(), alone=True)
"""One statement for both, as each is a trip to the database."""


async def _take_up(
    connection: AsyncConnection,
    request: Request,
    project: ProjectRow,
    identity: str,
    values: dict[str, Any],
) -> int | None:
    """Let a known agent begin again and return its row id; None when it is not known."""
    found = await connection.execute(
        select(launch_agents.c.id, launch_agents.c.created_by)
        .where(launch_agents.c.project_id == project.id, launch_agents.c.identity == identity)
        .with_for_update()
    )
    known = found.one_or_none()
    if known is None:
        return None
    if known.created_by not in {None, request.viewer.user_id}:
        raise ApiError(
            "this agent's identity is in use by another user's agent; give each agent a state "
            "folder of its own, or start it with the key that it was started with before",
            status=409,
        )
    await connection.execute(
        update(launch_agents).where(launch_agents.c.id == known.id).values(values)
    )
    return int(known.id)


async def _insert_agent(connection: AsyncConnection, values: dict[str, Any]) -> int | None:
    name = "agent-" + "".join(secrets.choice(NAME_ALPHABET) for _ in range(NAME_LENGTH))
    made = await connection.execute(
        insert(connection, launch_agents)
        .values(**values, name=name)
        .on_conflict_do_nothing()
        .returning(launch_agents.c.id)
    )
    number: int | None = made.scalar_one_or_none()
    return number


async def _agents(connection: AsyncConnection, which: ColumnElement[bool]) -> list[AgentRow]:
    result = await connection.execute(
        select(
            launch_agents.c.id,
            entities.c.name.label("entity_name"),
            launch_agents.c.name,
            launch_agents.c.hostname,
            launch_agents.c.version,
            launch_agents.c.config,
            launch_agents.c.status,
            launch_agents.c.stop_polling,
            users.c.username.label("created_by"),
            launch_agents.c.created_at,
            launch_agents.c.heartbeat_at,
        )
        .join(projects, projects.c.id == launch_agents.c.project_id)
        .join(entities, entities.c.id == projects.c.entity_id)
        .outerjoin(users, users.c.id == launch_agents.c.created_by)
        .where(which)
        .order_by(launch_agents.c.heartbeat_at.desc(), launch_agents.c.id.desc())
        .limit(MAX_AGENTS)
    )
    rows = result.all()
    queues = await _queues_of(connection, [row.id for row in rows])
    return [AgentRow(queues.get(row.id, ()), *row) for row in rows]


async def _queues_of(
    connection: AsyncConnection, agent_ids: Sequence[int]
) -> dict[int, tuple[AgentQueue, ...]]:
    rows = await connection.execute(
        select(launch_agent_queues.c.agent_id, run_queues.c.id, run_queues.c.name)
        .join(run_queues, run_queues.c.id == launch_agent_queues.c.queue_id)
        .where(launch_agent_queues.c.agent_id.in_(agent_ids))
        .order_by(in_order(run_queues.c.name))
    )
    found: dict[int, tuple[AgentQueue, ...]] = {}
    for agent_id, queue_id, name in rows:
        found[agent_id] = (*found.get(agent_id, ()), AgentQueue(queue_id, name))
    return found
