"""W&B's queue API: items, the agent's presence and what is known of runs.

One object for the three ports, since they share one registration. Works against W&B's service, a
self-managed W&B and our control plane.
"""

import base64
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog

from launch_async import __version__
from launch_async.domain.errors import AgentUnfit, Stage, Unavailable
from launch_async.domain.ids import ItemId, QueueRef, RunId, RunRef, new_run_id
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.domain.secret import Secret
from launch_async.kit.clock import unix_now
from launch_async.ports.presence import AgentStatus
from launch_async.ports.queue import Popped, RejectedItem
from launch_async.ports.runs import HIDDEN, RunView
from launch_async.wire import operations
from launch_async.wire.answers import Parts
from launch_async.wire.codec import MalformedError, decode_run_spec, decode_upload_headers
from launch_async.wire.requeue_operations import WARN
from launch_async.wire.transport import RequestRefused, Transport

HIDDEN_JOB_TYPE = "sweep-controller"
"""Job type of the agent's hidden run, as W&B's agent sets it (launch-features.md R1)."""

RUNS_PER_REQUEST = 100
OWN_VERSION = f"launch-async@{__version__}"

_MALFORMED = (KeyError, TypeError, IndexError, AttributeError, ValueError)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class WandbQueueService:
    """The ports `ItemQueue`, `Presence` and `RunDirectory` over GraphQL."""

    def __init__(
        self,
        transport: Transport,
        *,
        queues: Sequence[QueueRef],
        hostname: str,
        agent_config: Mapping[str, Any],
        version: str = OWN_VERSION,
    ) -> None:
        self._transport = transport
        self._queues = queues
        self._hostname = hostname
        self._agent_config = agent_config
        self._version = version
        self._agent_id: str | None = None
        self._hidden_run: RunRef | None = None
        self._leases = False
        """Whether the service hands out leases with its items: ours does, W&B's does not."""

    async def register(self) -> str:
        """Raises `AgentUnfit` when a queue does not exist or the API refuses the agent."""
        entity = self._queues[0].entity
        project = operations.LAUNCH_PROJECT
        try:
            queue_ids = await self._queue_ids(entity)
            created = await self._transport.execute(
                operations.CREATE_AGENT,
                {
                    "entity": entity,
                    "project": project,
                    "queues": queue_ids,
                    "hostname": self._hostname,
                    "agentConfig": msgspec.json.encode(self._agent_config).decode(),
                    "version": self._version,
                },
            )
            agent_id = created["createLaunchAgent"]["launchAgentId"]
            agent = await self._transport.execute(operations.AGENT, {"agentId": agent_id})
            name: str = agent["launchAgent"]["name"]
            await self._transport.execute(
                operations.UPSERT_RUN,
                {
                    "name": name,
                    "displayName": name,
                    "project": project,
                    "entity": entity,
                    "jobType": HIDDEN_JOB_TYPE,
                },
            )
        except RequestRefused as error:
            msg = f"{self._transport.base_url} refused this agent: {error}"
            raise AgentUnfit(msg) from error
        except _MALFORMED as error:
            msg = f"{self._transport.base_url} answered the registration without an agent"
            raise AgentUnfit(msg) from error
        self._leases = await self._hands_out_leases()
        self._agent_id = agent_id
        self._hidden_run = RunRef(entity=entity, project=project, run_id=RunId(name))
        return name

    async def follow(self, queues: Sequence[QueueRef]) -> str:
        """As `register`, for other queues. W&B's service makes it a new agent, ours knows it."""
        before = self._queues, self._agent_config
        self._queues = queues
        self._agent_config = {**self._agent_config, "queues": [queue.name for queue in queues]}
        try:
            return await self.register()
        except BaseException:
            self._queues, self._agent_config = before
            raise

    async def beat(self, status: AgentStatus) -> bool:
        """True when the service asks this agent to stop polling."""
        with _answering("the heartbeat"):
            answer = await self._transport.execute(operations.AGENT, {"agentId": self._agent_id})
            agent = answer.get("launchAgent")
            if agent is None:
                if status is not AgentStatus.KILLED:
                    log.warning("the service forgot this agent: it registers again")
                    await self.register()
                return False
            await self._transport.execute(
                operations.UPDATE_AGENT, {"agentId": self._agent_id, "agentStatus": status.value}
            )
            return bool(agent["stopPolling"])

    async def upload(self, path: str, content: bytes) -> None:
        """Put a file into the agent's hidden run."""
        run = self._hidden_run
        if run is None:
            msg = "the agent has no hidden run yet"
            raise Unavailable(msg)
        with _answering(f"the file {path}"):
            answer = await self._transport.execute(
                operations.CREATE_RUN_FILES,
                {"entity": run.entity, "project": run.project, "run": run.run_id, "files": [path]},
            )
            made = answer["createRunFiles"]
            headers = decode_upload_headers(made["uploadHeaders"])
            await self._transport.put(made["files"][0]["uploadUrl"], content, headers)

    async def pop(self, queues: Sequence[QueueRef]) -> Sequence[Popped]:
        """The queues have one owner. Both services do a mutation's fields one after the other."""
        with _answering("the look"):
            answer = await self._transport.execute_in_parts(
                operations.pop_from_queues(len(queues), leased=self._leases),
                {
                    "entity": queues[0].entity,
                    "project": queues[0].project,
                    "launchAgentId": self._agent_id,
                    **{f"q{index}": queue.name for index, queue in enumerate(queues)},
                },
            )
        return [_popped(queue, f"p{index}", answer) for index, queue in enumerate(queues)]

    async def ack(self, item: Item) -> bool:
        """Claim the item; False when it is somebody else's or gone.

        Shows the lease: an agent that slept through it must not claim what another one runs by
        now, under the same run id even.
        """
        try:
            answer = await self._transport.execute(
                operations.ACK, {"itemId": item.id, "runId": item.run_id}, headers=_lease_of(item)
            )
        except RequestRefused as error:
            log.warning("ack refused", item=item.id, reason=str(error))
            return False
        return bool((answer.get("ackRunQueueItem") or {}).get("success"))

    async def fail(
        self, item: Item | RejectedItem, outcome: Outcome, *, files: Sequence[str]
    ) -> None:
        """Tell that the item failed. A service that does not know the item any more is obeyed."""
        try:
            await self._transport.execute(
                operations.FAIL,
                {
                    "runQueueItemId": item.id,
                    "message": outcome.message,
                    "stage": outcome.stage.value,
                    "filePaths": list(files),
                },
                headers=_lease_of(item),
            )
        except RequestRefused as error:
            log.warning("failure report refused", item=item.id, reason=str(error))

    async def warn(self, item: Item, message: str) -> None:
        """Tell a warning of the item; a service that refuses it is obeyed."""
        try:
            await self._transport.execute(
                WARN,
                {"itemId": item.id, "message": message, "stage": Stage.AGENT.value},
                headers=_lease_of(item),
            )
        except RequestRefused as error:
            log.warning("warning refused", item=item.id, reason=str(error))

    async def look_up(self, runs: Sequence[RunRef]) -> Mapping[RunRef, RunView]:
        """State and stop flag of many runs, `RUNS_PER_REQUEST` per request."""
        found: dict[RunRef, RunView] = {}
        for start in range(0, len(runs), RUNS_PER_REQUEST):
            found.update(await self._look_up(runs[start : start + RUNS_PER_REQUEST]))
        return found

    async def ask_to_stop(self, run: RunRef) -> None:
        """As the web page's stop does. Of a run that has not begun W&B's service knows nothing."""
        try:
            await self._transport.execute(operations.STOP_RUN, {"id": _storage_id(run)})
        except RequestRefused as error:
            log.warning("run cannot be asked to stop", run=str(run), reason=str(error))

    async def _look_up(self, runs: Sequence[RunRef]) -> Mapping[RunRef, RunView]:
        variables: dict[str, str] = {}
        for index, run in enumerate(runs):
            variables |= {
                f"e{index}": run.entity,
                f"p{index}": run.project,
                f"r{index}": run.run_id,
            }
        try:
            answer = await self._transport.execute(operations.look_up_runs(len(runs)), variables)
        except RequestRefused as error:
            return await self._look_up_apart(runs, error)
        found: dict[RunRef, RunView] = {}
        with _answering("the look for runs"):
            for index, run in enumerate(runs):
                view = (answer.get(f"q{index}") or {}).get("run")
                if view is not None:
                    found[run] = RunView(
                        state=view["state"] or "pending", stop_requested=bool(view["stopped"])
                    )
        return found

    async def _look_up_apart(
        self, runs: Sequence[RunRef], error: RequestRefused
    ) -> Mapping[RunRef, RunView]:
        """One run that we may not see must not hide the others; it is not said to be missing."""
        if len(runs) == 1:
            log.warning("run cannot be looked up", run=str(runs[0]), reason=str(error))
            return {runs[0]: RunView(state=HIDDEN)}
        middle = len(runs) // 2
        return {**await self._look_up(runs[:middle]), **await self._look_up(runs[middle:])}

    async def _hands_out_leases(self) -> bool:
        try:
            answer = await self._transport.execute(operations.POP_FIELDS, {})
            return "lease" in {field["name"] for field in answer["__type"]["fields"]}
        except (RequestRefused, *_MALFORMED):
            return False

    async def _queue_ids(self, entity: str) -> list[str]:
        answer = await self._transport.execute(
            operations.RUN_QUEUES,
            {"entity": entity, "projectName": operations.LAUNCH_PROJECT},
        )
        project = answer.get("project")
        known = {queue["name"]: queue["id"] for queue in (project or {}).get("runQueues") or ()}
        missing = [queue.name for queue in self._queues if queue.name not in known]
        if missing:
            available = ", ".join(sorted(known)) or "none"
            msg = (
                f"no queue {', '.join(missing)} in the entity {entity}; it has: {available}. "
                "Make the queue first or correct its name."
            )
            raise AgentUnfit(msg)
        return [known[queue.name] for queue in self._queues]


def _popped(queue: QueueRef, name: str, answer: Parts) -> Popped:
    if name in answer.errors:
        return Unavailable(f"the queue {queue} was refused: {answer.errors[name]}")
    try:
        with _answering(f"the queue {queue}"):
            popped = answer.data.get(name)
            if popped is None:
                return None
            item_id, data = ItemId(popped["runQueueItemId"]), popped.get("runSpec")
            lease = popped.get("lease")
    except Unavailable as error:
        return error
    try:
        spec = decode_run_spec(data)
    except MalformedError as error:
        return RejectedItem(id=item_id, queue=queue, message=str(error), lease=lease)
    return Item(
        id=item_id,
        queue=queue,
        run_id=spec.run_id or new_run_id(),
        spec=spec,
        popped_at=unix_now(),
        lease=lease,
        sent=Secret(msgspec.json.encode(data).decode()) if lease is None else None,
    )


def _storage_id(run: RunRef) -> str:
    """As W&B's scheduler makes it from a run's names (wire-contract.md §1.8)."""
    return base64.b64encode(f"Run:v1:{run.run_id}:{run.project}:{run.entity}".encode()).decode()


def _lease_of(item: Item | RejectedItem) -> dict[str, str]:
    return {} if item.lease is None else {operations.LEASE_HEADER: item.lease}


@contextmanager
def _answering(what: str) -> Generator[None, None, None]:
    """A refusal, or an answer that lacks what it must hold, is an outage of the service."""
    try:
        yield
    except RequestRefused as error:
        msg = f"{what} was refused: {error}"
        raise Unavailable(msg) from error
    except _MALFORMED as error:
        msg = f"{what} got an answer that is not understood ({type(error).__name__}: {error})"
        raise Unavailable(msg) from error


async def default_entity(transport: Transport) -> str:
    """The login's own entity.

    Raises:
        AgentUnfit: the key belongs to nobody.
    """
    answer = await transport.execute(operations.VIEWER, {})
    viewer = answer.get("viewer")
    if not viewer or not viewer.get("entity"):
        msg = f"{transport.base_url} does not know this API key; check WANDB_API_KEY"
        raise AgentUnfit(msg)
    entity: str = viewer["entity"]
    return entity
