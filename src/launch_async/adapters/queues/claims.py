"""W&B's queue API: how items stand whose runs were found on a backend."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch_async.domain.errors import Unavailable
from launch_async.domain.ids import ItemId
from launch_async.domain.run import Origin
from launch_async.ports.claims import Claim
from launch_async.wire.item_states import look_up_items
from launch_async.wire.transport import RequestRefused, Transport

ITEMS_PER_REQUEST = 50
_HELD = frozenset({"CLAIMED", "RUNNING"})
_WAITING = frozenset({"PENDING", "LEASED"})


class WandbClaims:
    """The port `Claims` over GraphQL."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def look_up_items(self, origins: Sequence[Origin]) -> Mapping[ItemId, Claim]:
        """`ITEMS_PER_REQUEST` per request; a refusal is an outage, as it says nothing of items."""
        found: dict[ItemId, Claim] = {}
        for start in range(0, len(origins), ITEMS_PER_REQUEST):
            found.update(await self._look_up(origins[start : start + ITEMS_PER_REQUEST]))
        return found

    async def _look_up(self, origins: Sequence[Origin]) -> Mapping[ItemId, Claim]:
        variables: dict[str, str] = {}
        for index, origin in enumerate(origins):
            queue = origin.queue
            variables |= {
                f"e{index}": queue.entity,
                f"p{index}": queue.project,
                f"q{index}": queue.name,
                f"i{index}": origin.item_id,
            }
        try:
            answer = await self._transport.execute(look_up_items(len(origins)), variables)
            return {
                origin.item_id: _claim(item, origin)
                for index, origin in enumerate(origins)
                if (item := _item(answer.get(f"a{index}"))) is not None
            }
        except RequestRefused as error:
            raise Unavailable(f"The look for items was refused: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise Unavailable("The look for items got an answer that is not understood") from error


def _item(project: Any) -> Any:
    queue = (project or {}).get("runQueue")
    return (queue or {}).get("runQueueItem")


def _claim(item: Any, origin: Origin) -> Claim:
    state = str(item["state"]).upper()  # W&B's service writes some of them small
    ours = item.get("associatedRunId") in {None, origin.run.run_id}
    if state in _HELD:
        return Claim.HELD if ours else Claim.OTHERS
    return Claim.OTHERS if state in _WAITING else Claim.ENDED
