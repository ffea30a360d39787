"""Words of the launch side over HTTP, with the documents that wandb 0.31.0 sends."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from server_harness import USERNAME, Http
from sqlalchemy import update

from client_documents import client_document
from launch_async.server.ids import decode_number
from launch_async.server.store.tables.queues import launch_agents, queue_items

WHERE = {"entityName": USERNAME, "projectName": "model-registry"}
ITEM = """
query Item($entityName: String!, $projectName: String!, $queue: String!, $id: ID!) {
  project(name: $projectName, entityName: $entityName) {
    runQueue(name: $queue) {
      runQueueItem(id: $id) {
        id state associatedRunId message stage filePaths priority runSpec author agentId agentName
        runEntity runProject position ownResourceArgs requeuedFrom stopRequested agentLost
        createdAt leasedAt leaseExpiresAt claimedAt startedAt endedAt
        warnings { message stage filePaths createdAt }
      }
    }
  }
}
"""
ACK = """
mutation Ack($item: ID!, $run: String!) {
  ackRunQueueItem(input: {runQueueItemId: $item, runName: $run}) { success }
}
"""
POP = """
mutation Pop($entity: String, $queue: String!, $agent: ID) {
  popFromRunQueue(input: {entityName: $entity, queueName: $queue, launchAgentId: $agent}) {
    runQueueItemId runSpec lease
  }
}
"""
CANCEL = """
mutation Cancel($item: ID!) {
  cancelRunQueueItem(input: {runQueueItemId: $item}) { success state }
}
"""
CANCEL_ALL = """
mutation CancelAll($queue: ID!, $running: Boolean) {
  cancelRunQueueItems(input: {queueID: $queue, includeRunning: $running}) { cancelled }
}
"""
REQUEUE = """
mutation Requeue($item: ID!, $keep: Boolean) {
  requeueRunQueueItem(input: {runQueueItemId: $item, keepRun: $keep}) { runQueueItemId }
}
"""
CHANGE = """
mutation Change($queue: ID!, $paused: Boolean, $limit: Int) {
  updateRunQueue(input: {queueID: $queue, paused: $paused, concurrencyLimit: $limit}) {
    runQueue { name isPaused pausedAt concurrencyLimit }
  }
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
        """Pop, as our agent does; W&B's knows no lease."""
        data = await self.http.data(POP, entity=USERNAME, queue=queue, agent=agent)
        return data["popFromRunQueue"]

    async def popped_id(self, queue: str = "q", agent: str | None = None) -> str | None:
        """Pop and return the item's id."""
        popped = await self.pop(queue, agent)
        return None if popped is None else popped["runQueueItemId"]

    async def lease(self, queue: str = "q", agent: str | None = None) -> str:
        """Pop the item that there is and return its lease."""
        popped = await self.pop(queue, agent)
        assert popped is not None
        return popped["lease"]

    async def say(self, document: str, lease: str | None, **variables: Any) -> Any:
        """Say something of an item, with its lease as our agent does, or as W&B's without."""
        headers = {} if lease is None else {"X-Launch-Async-Lease": lease}
        headers["Authorization"] = f"Bearer {self.http.server.key}"
        body = {"query": document, "variables": variables}
        reply = await self.http.send("POST", "/graphql", json=body, headers=headers)
        assert reply.status == 200, reply.body
        return reply.json()["data"]

    async def ack(self, item: str, run: str, lease: str | None = None) -> bool:
        """Ack an item for a run."""
        data = await self.say(ACK, lease, item=item, run=run)
        return data["ackRunQueueItem"]["success"]

    async def fail(
        self,
        item: str,
        message: str = "it broke",
        stage: str = "run",
        *,
        lease: str | None = None,
    ) -> bool:
        """Fail an item."""
        data = await self.say(
            client_document("failRunQueueItem.api"),
            lease,
            runQueueItemId=item,
            message=message,
            stage=stage,
            filePaths=[f"{item}/error/error.log"],
        )
        return data["failRunQueueItem"]["success"]

    async def warn(self, item: str, message: str, lease: str | None = None) -> None:
        """Warn of an item."""
        await self.say(
            client_document("updateRunQueueItemWarning.api"),
            lease,
            runQueueItemId=item,
            message=message,
            stage="Kubernetes",
            filePaths=None,
        )

    async def cancel(self, item: str) -> tuple[bool, str]:
        """Cancel an item; return whether it had an effect and the item's state."""
        data = (await self.http.data(CANCEL, item=item))["cancelRunQueueItem"]
        return data["success"], data["state"]

    async def cancel_all(self, queue: str = "q", *, running: bool | None = None) -> int:
        """Cancel what is in a queue; return how many items."""
        data = await self.http.data(CANCEL_ALL, queue=await self.queue_id(queue), running=running)
        return data["cancelRunQueueItems"]["cancelled"]

    async def requeue(self, item: str, *, keep: bool | None = None) -> str:
        """Requeue an item and return the new one's id."""
        data = await self.http.data(REQUEUE, item=item, keep=keep)
        return data["requeueRunQueueItem"]["runQueueItemId"]

    async def change(self, queue: str = "q", **changes: Any) -> dict[str, Any]:
        """Pause, resume or limit a queue."""
        data = await self.http.data(CHANGE, queue=await self.queue_id(queue), **changes)
        return data["updateRunQueue"]["runQueue"]

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

    async def agent(self, *queues: str, config: str = '{"max_jobs": 1}') -> str:
        """Register an agent on queues and return its id."""
        data = await self.http.data(
            client_document("createLaunchAgent.api"),
            entity=USERNAME,
            project="model-registry",
            queues=[await self.queue_id(name) for name in queues or ("q",)],
            hostname="host",
            agentConfig=config,
            version="wandb@0.31.0",
        )
        return data["createLaunchAgent"]["launchAgentId"]

    async def silence(self, agent: str, seconds: float = 121) -> None:
        """Let an agent not have been heard for so long."""
        number = decode_number(agent, "LaunchAgent")
        async with self.http.server.services.store.write() as connection:
            await connection.execute(
                update(launch_agents)
                .where(launch_agents.c.id == number)
                .values(heartbeat_at=datetime.now(UTC) - timedelta(seconds=seconds))
            )
