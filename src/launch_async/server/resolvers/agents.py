"""Resolvers of launch agents."""

from typing import Any

from ariadne import MutationType, ObjectType, QueryType, SchemaBindable
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server import agents, audit
from launch_async.server.access import Role, require_role
from launch_async.server.agents import AGENT, STATUSES, AgentRow
from launch_async.server.context import Info, request_of
from launch_async.server.errors import ApiError
from launch_async.server.ids import encode_id
from launch_async.server.projects import ProjectRow, ensure_project, resolve_entity
from launch_async.server.queues import QUEUE, QueueRow

query = QueryType()
mutation = MutationType()
project_type = ObjectType("Project")
queue_type = ObjectType("RunQueue")
agent_type = ObjectType("LaunchAgent")

BINDABLES: list[SchemaBindable] = [query, mutation, project_type, queue_type, agent_type]

Json = dict[str, Any]


@query.field("launchAgent")
async def launch_agent(_: None, info: Info, id: str) -> AgentRow | None:  # noqa: A002
    """Return an agent; null for one that this server never saw."""
    request = request_of(info)
    async with request.store.read() as connection:
        return await agents.find_agent(connection, request, id)


@project_type.field("launchAgents")
async def launch_agents(project: ProjectRow, info: Info) -> list[AgentRow]:
    """Return a project's agents."""
    async with request_of(info).store.read() as connection:
        return await agents.agents_of_project(connection, project.id)


@queue_type.field("launchAgents")
async def queue_agents(queue: QueueRow, info: Info) -> list[AgentRow]:
    """Return the agents that poll a queue."""
    async with request_of(info).store.read() as connection:
        return await agents.agents_of_queue(connection, queue.id)


@agent_type.field("id")
def agent_id(agent: AgentRow, _: Info) -> str:
    """Return the opaque id."""
    return encode_id(AGENT, agent.id)


@agent_type.field("runQueues")
def agent_run_queues(agent: AgentRow, _: Info) -> list[str]:
    """Return the ids of the queues that it polls."""
    return [encode_id(QUEUE, queue.id) for queue in agent.queues]


@agent_type.field("queueNames")
def agent_queue_names(agent: AgentRow, _: Info) -> list[str]:
    """Return the names of the queues that it polls."""
    return [queue.name for queue in agent.queues]


@agent_type.field("agentStatus")
def agent_status(agent: AgentRow, _: Info) -> str:
    """Return what the agent last said of itself."""
    return agent.status


@agent_type.field("online")
def agent_online(agent: AgentRow, info: Info) -> bool:
    """Tell whether the agent was heard lately."""
    return agent.online(request_of(info).now())


@agent_type.field("agentConfig")
def agent_config(agent: AgentRow, _: Info) -> str | None:
    """Return the config that the agent came with."""
    return agent.config


@mutation.field("createLaunchAgent")
async def create_launch_agent(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Register an agent."""
    request = request_of(info)
    async with request.store.write() as connection:
        entity = await resolve_entity(connection, request, input["entity_name"], need=Role.MEMBER)
        project = await ensure_project(
            connection, entity.id, input["project_name"], user_id=request.viewer.user_id
        )
        number = await agents.register_agent(
            connection,
            request,
            project,
            queue_ids=input["run_queues"],
            hostname=input["hostname"],
            config=input.get("agent_config"),
            version=input.get("version"),
        )
    return {"launch_agent_id": encode_id(AGENT, number), "success": True}


@mutation.field("updateLaunchAgent")
async def update_launch_agent(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Note an agent's status. Never an error: W&B's agent would exit."""
    request = request_of(info)
    status = input.get("agent_status")

    async def work(connection: AsyncConnection) -> bool:
        agent = await agents.find_agent(connection, request, input["launch_agent_id"])
        if agent is None or (status is not None and status not in STATUSES):
            return False
        require_role(request.viewer, agent.entity_name, Role.MEMBER)
        await agents.set_status(connection, agent.id, status, now=request.now())
        return True

    return {"success": await request.store.transact(work)}


@mutation.field("stopLaunchAgent")
async def stop_launch_agent(_: None, info: Info, input: Json) -> Json:  # noqa: A002
    """Ask an agent to take no more items."""
    request = request_of(info)
    async with request.store.write() as connection:
        agent = await agents.find_agent(connection, request, input["launch_agent_id"])
        if agent is None:
            raise ApiError(f"agent {input['launch_agent_id']!r} not found", status=404)
        require_role(request.viewer, agent.entity_name, Role.MEMBER)
        await agents.stop_agent(connection, agent.id)
        await audit.record(connection, request, "agent.stop", agent.entity_name, agent.name)
    return {"success": True}
