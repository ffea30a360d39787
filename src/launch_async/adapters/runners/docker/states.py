"""What the engine says of a container: which run it is of, how that does and how it ended."""

from collections.abc import Mapping
from typing import Any

import msgspec

from launch_async.adapters.runners.docker.options import ITEM_LABEL, ORIGIN_LABEL, RUN_LABEL
from launch_async.domain.errors import Reason
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.run import (
    FoundRun,
    Origin,
    RunEnd,
    RunHandle,
    RunState,
    RunStatus,
    Trace,
)

BACKEND = "docker"

_SIGNALS = {137: "SIGKILL", 143: "SIGTERM"}


def handle_of(
    container_id: str, name: str, image: tuple[str, str], run_id: RunId, item_id: ItemId
) -> RunHandle:
    facts = {
        "container_id": container_id,
        "container": name,
        "image": image[0],
        "image_digest": image[1],
    }
    return RunHandle(backend=BACKEND, run_id=run_id, item_id=item_id, data=facts)


def found_run(listed: Mapping[str, Any]) -> FoundRun:
    labels: Mapping[str, str] = listed["Labels"]
    match listed["State"]:
        case "created":
            trace = Trace.PREPARED
        case "exited" | "dead" | "removing":
            trace = Trace.ENDED
        case _:
            trace = Trace.ALIVE
    name = str((listed["Names"] or [listed["Id"]])[0]).lstrip("/")
    run_id, item_id = RunId(labels[RUN_LABEL]), ItemId(labels[ITEM_LABEL])
    image = (listed["Image"], listed["ImageID"])
    handle = handle_of(listed["Id"], name, image, run_id, item_id)
    return FoundRun(handle=handle, trace=trace, origin=_origin(labels))


def _origin(labels: Mapping[str, str]) -> Origin | None:
    try:
        return msgspec.json.decode(labels.get(ORIGIN_LABEL, ""), type=Origin)
    except msgspec.MsgspecError:
        return None  # an earlier version's container, or somebody else's idea of our labels


def status_of(state: Mapping[str, Any], *, stopped_by_us: bool) -> RunStatus:
    match state["Status"]:
        case "created":
            return RunStatus(state=RunState.STARTING)
        case "exited" | "dead":
            return RunStatus(state=RunState.ENDED, end=_end(state, stopped_by_us=stopped_by_us))
        case "removing":
            return RunStatus(state=RunState.UNKNOWN, detail="the container is being removed")
        case "paused":
            return RunStatus(state=RunState.RUNNING, detail="paused by somebody")
        case _:
            return RunStatus(state=RunState.RUNNING)


def maybe_out_of_memory(state: Mapping[str, Any]) -> bool:
    killed = state["Status"] == "exited" and int(state["ExitCode"]) == 137
    return killed and not state.get("OOMKilled")


def _end(state: Mapping[str, Any], *, stopped_by_us: bool) -> RunEnd:
    code = int(state["ExitCode"])
    if code == 137 and state.get("OOMKilled"):  # alone it may mean a child only (docker.md §4)
        return RunEnd(
            exit_code=code,
            reason=Reason.OUT_OF_MEMORY,
            detail="killed because its memory limit was reached: raise `memory`",
        )
    if state.get("Error"):
        return RunEnd(exit_code=code, detail=f"Docker says: {state['Error']}")
    if code in _SIGNALS and not stopped_by_us:
        return RunEnd(
            exit_code=code,
            detail=f"exit code {code} is that of a {_SIGNALS[code]}: something outside of this"
            " agent stopped or killed it (docker stop, docker kill, the machine's memory)",
        )
    return RunEnd(exit_code=code)
