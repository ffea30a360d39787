"""Words of the launch side over HTTP, with the documents that wandb 0.31.0 sends."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
from client_documents import client_document
from server_harness import USERNAME, Http
from sqlalchemy import update

from launch_async.server.ids import decode_number
from launch_async.server.store.tables.queues import queue_items

WHERE = {"entityName": USERNAME, "projectName": "model-registry"}
ITEM = """
query Item($entityName: String!, $projectName: String!, $queue: String!, $id: ID!) {
  project(name: $projectName, entityName: $entityName) {
    runQueue(name: $queue) {
      runQueueItem(id: $id) {
        id state associatedRunId message stage filePaths priority runSpec author agentId agentName
        runEntity runProject
        createdAt leasedAt leaseExpiresAt claimedAt startedAt endedAt
        warnings { message stage filePaths createdAt }
      }
    }
  }
}
"""
ACK_AS = """
mutation Ack($item: ID!, $run: String!, $agent: ID) {
  ackRunQueueItem(input: {runQueueItemId: $item, runName: $run, launchAgentId: $agent}) { success }
}
"""
FAIL_AS = """
mutation Fail($item: ID!, $message: String!, $agent: ID) {
  failRunQueueItem(
    input: {runQueueItemId: $item, message: $message, stage: "agent", launchAgentId: $agent}
  ) { success }
}
"""


def spec(**changes: Any) -> dict[str, Any]:
    """Return a run spec as the client pushes it."""
    return {
        "job": "tester/jobs/job:latest",
        "entity": USERNAME,
        "project": "Target",
        "docker": {},
        "resource": None,
        "git": {},
        "overrides": {},
    } | changes


class Launch(msgspec.Struct, frozen=True):
    """A user and an agent, in the client's words."""

    http: Http

    async def queue(
        self,
        name: str = "q",
        kind: str = "local-process",
        args: dict[str, Any] | None = None,
        variables: dict[str, Any] | None = None,
        mode: str | None = None,
    ) -> None:
        """Make or change a queue."""
        await self.http.data(
            client_document("UpsertRunQueue.core"),
            **WHERE,
            queueName=name,
            resourceType=kind,
            resourceConfig=json.dumps({"resource_args": {kind: args or {}}}),
            templateVariables=None if variables is None else json.dumps(variables),
            prioritizationMode=mode,
            externalLinks=None,
        )

    async def queue_id(self, name: str = "q") -> str:
        """Return a queue's opaque id."""
        data = await self.http.data(
            client_document("GetRunQueueMetadata.jobs"), **WHERE, runQueue=name
        )
        return data["project"]["runQueue"]["id"]

    async def try_push(self, queue: str = "q", **more: Any) -> tuple[int, Any]:
        """Push; return the status and the data or the message."""
        variables = {"runSpec": json.dumps(more.pop("spec", spec())), **more}
        reply = await self.http.ask(
            client_document("pushToRunQueueByName.full"), **WHERE, queueName=queue, **variables
        )
        body = reply.json()
        if "errors" in body:
            return reply.status, body["errors"][0]["message"]
        return reply.status, body["data"]["pushToRunQueueByName"]

    async def push(self, queue: str = "q", **more: Any) -> str:
        """Push and return the item's id."""
        status, pushed = await self.try_push(queue, **more)
        assert status == 200, pushed
        return pushed["runQueueItemId"]

    async def pop(self, queue: str = "q", agent: str | None = None) -> dict[str, Any] | None:
        """Pop, as the agent does."""
        data = await self.http.data(
            client_document("popFromRunQueue.api"),
            entity=USERNAME,
            project="model-registry",
            queueName=queue,
            launchAgentId=agent,
        )
        return data["popFromRunQueue"]

    async def popped_id(self, queue: str = "q", agent: str | None = None) -> str | None:
        """Pop and return the item's id."""
        popped = await self.pop(queue, agent)
        return None if popped is None else popped["runQueueItemId"]

    async def ack(self, item: str, run: str, agent: str | None = None) -> bool:
        """Ack; W&B's agent does not say who it is, ours may."""
        data = await self.http.data(ACK_AS, item=item, run=run, agent=agent)
        return data["ackRunQueueItem"]["success"]

    async def fail(self, item: str, message: str = "it broke", stage: str = "run") -> bool:
        """Fail, as W&B's agent does."""
        data = await self.http.data(
            client_document("failRunQueueItem.api"),
            runQueueItemId=item,
            message=message,
            stage=stage,
            filePaths=[f"{item}/error/error.log"],
        )
        return data["failRunQueueItem"]["success"]

    async def item(self, item: str, queue: str = "q") -> dict[str, Any]:
        """Return everything about an item."""
        data = await self.http.data(ITEM, **WHERE, queue=queue, id=item)
        return data["project"]["runQueue"]["runQueueItem"]

    async def state(self, item: str, queue: str = "q") -> str:
        """Return an item's state."""
        return (await self.item(item, queue))["state"]

    async def claimed(self, run: str = "r1") -> str:
        """Push, pop and ack one item of queue q."""
        await self.queue()
        item = await self.push()
        assert await self.popped_id() == item
        assert await self.ack(item, run)
        return item

    async def lapse(self, item: str) -> None:
        """Let an item's lease run out."""
        number = decode_number(item, "RunQueueItem")
        async with self.http.server.services.store.write() as connection:
            await connection.execute(
                update(queue_items)
                .where(queue_items.c.id == number)
                .values(lease_expires_at=datetime(2001, 1, 1, tzinfo=UTC))
            )

    async def agent(self, *queues: str) -> str:
        """Register an agent on queues and return its id."""
        data = await self.http.data(
            client_document("createLaunchAgent.api"),
            entity=USERNAME,
            project="model-registry",
            queues=[await self.queue_id(name) for name in queues or ("q",)],
            hostname="host",
            agentConfig='{"max_jobs": 1}',
            version="wandb@0.31.0",
        )
        return data["createLaunchAgent"]["launchAgentId"]
