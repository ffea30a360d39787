"""Informers: what they have is what the API server has, whatever becomes of their watches."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster
from kube_site import (
    Answer,
    KubeSite,
    answer,
    hangs,
    hangs_up,
    kube_site,
    status,
    streams,
    text,
)
from structlog.testing import capture_logs

from launch_async.adapters.runners.kubernetes.informer import Informer, Pace
from launch_async.adapters.runners.kubernetes.kinds import Kind
from launch_async.wire.kubernetes.cluster import KubeCluster

pytestmark = pytest.mark.anyio

JOBS = Kind(api_version="batch/v1", kind="Job", plural="jobs", namespaced=True)
MAPS = Kind(api_version="v1", kind="ConfigMap", plural="configmaps", namespaced=True)
PATH = "/apis/batch/v1/namespaces/n/jobs"
WITHIN_SECONDS = 20.0
FAST = Pace(
    idle_seconds=30.0,
    first_pause_seconds=0.01,
    longest_pause_seconds=0.05,
    refused_seconds=0.1,
    page=500,
)


class Meta(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] = {}


class Thing(msgspec.Struct, frozen=True):
    metadata: Meta
    data: dict[str, str] = {}


def thing(name: str, version: int, **data: Any) -> dict[str, Any]:
    meta = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": meta, "data": data}


def page(version: int, *items: dict[str, Any], following: str = "") -> Answer:
    meta = {"resourceVersion": str(version), **({"continue": following} if following else {})}
    return answer({"metadata": meta, "items": list(items)})


def event(kind: str, said: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": said}).encode() + b"\n"


def error_event(code: int, message: str = "too old") -> bytes:
    return event("ERROR", {"kind": "Status", "code": code, "message": message})


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


class Followed:
    """An informer at work, and what it told."""

    def __init__(
        self, cluster: KubeCluster, kind: Kind, namespace: str, selector: str, pace: Pace
    ) -> None:
        self.told: list[tuple[str, bool]] = []
        self.healths: list[str] = []
        self.changed = anyio.Event()
        self.raises = False
        self.informer = Informer(
            cluster,
            kind,
            namespace=namespace,
            selector=selector,
            of=Thing,
            on_change=self._hear,
            on_health=self._look,
            pace=pace,
        )

    @property
    def names(self) -> set[str]:
        return {one.metadata.name for one in self.informer.objects().values()}

    def data(self, name: str) -> dict[str, str]:
        found = self.informer.objects()
        return next(one.data for one in found.values() if one.metadata.name == name)

    async def until(self, wanted: Callable[[], object]) -> None:
        with anyio.fail_after(WITHIN_SECONDS):
            while not wanted():
                with anyio.move_on_after(0.05):  # some facts change without a call
                    await self.changed.wait()

    def _hear(self, found: Thing, gone: bool) -> None:
        self.told.append((found.metadata.name, gone))
        self._ring()
        if self.raises:
            msg = "a fault of ours"
            raise ValueError(msg)

    def _look(self) -> None:
        self.healths.append(self.informer.why)
        self._ring()
        if self.raises:
            msg = "a fault of ours"
            raise ValueError(msg)

    def _ring(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@asynccontextmanager
async def following(
    cluster: KubeCluster,
    *,
    kind: Kind = JOBS,
    namespace: str = "n",
    selector: str = "",
    pace: Pace = FAST,
) -> AsyncGenerator[Followed]:
    followed = Followed(cluster, kind, namespace, selector, pace)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(followed.informer.serve)
        yield followed
        tasks.cancel_scope.cancel()


class Jobs:
    """The jobs of a scripted API server: lists and watches have scripts of their own."""

    def __init__(self, site: KubeSite, cluster: KubeCluster) -> None:
        self.site = site
        self.cluster = cluster
        self.lists: list[Answer] = [page(1)]
        self.watches: list[Answer] = [streams(then="hang")]
        site.on("GET", PATH, self._answer)

    def queries(self, *, watch: bool) -> list[dict[str, str]]:
        asked = [dict(one.query) for one in self.site.requests]
        return [one for one in asked if ("watch" in one) == watch]

    async def _answer(self, request: Any) -> Any:
        script = self.watches if "watch" in request.query else self.lists
        return await (script.pop(0) if len(script) > 1 else script[0])(request)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncGenerator[Jobs]:
    async with kube_site() as site:
        path = site.kubeconfig(tmp_path / "config")
        cluster = KubeCluster(config_file=path, environ={}, calls_per_second=1000, burst=1000)
        try:
            yield Jobs(site, cluster)
        finally:
            await cluster.close()


async def test_it_lists_by_pages_and_watches_from_there(jobs: Jobs):
    jobs.lists = [page(7, thing("a", 3), following="next"), page(7, thing("b", 5))]
    jobs.watches = [
        streams(
            event("ADDED", thing("c", 8)),
            event("MODIFIED", thing("a", 9, done="yes")),
            event("DELETED", thing("b", 10)),
            bookmark(20),
        ),
        streams(then="hang"),
    ]
    async with following(jobs.cluster, selector="x=y") as followed:
        assert not followed.informer.fresh
        await followed.until(lambda: len(jobs.queries(watch=True)) == 2)
        assert followed.names == {"a", "c"}
        assert followed.data("a") == {"done": "yes"}
        assert followed.told == [
            ("a", False), ("b", False), ("c", False), ("a", False), ("b", True)
        ]  # fmt: skip
        assert followed.informer.fresh
        assert followed.informer.age_seconds < 10
    first, second = jobs.queries(watch=False)
    assert first == {"limit": "500", "labelSelector": "x=y"}
    assert second == {**first, "continue": "next"}
    watched, again = jobs.queries(watch=True)
    assert watched["labelSelector"] == "x=y"
    assert watched["allowWatchBookmarks"] == "true"
    assert 240 <= int(watched["timeoutSeconds"]) <= 360
    assert (watched["resourceVersion"], again["resourceVersion"]) == ("7", "20")


@pytest.mark.parametrize(
    "too_old",
    [status(410, "Expired", "too old"), streams(error_event(410))],
    ids=["status", "event"],
)
async def test_it_lists_anew_when_it_is_too_old_and_tells_what_is_gone(jobs: Jobs, too_old: Answer):
    jobs.lists = [
        page(7, thing("a", 3), thing("b", 4), thing("c", 5)),
        page(9, thing("a", 3), thing("b", 8)),
        page(12, thing("b", 8), thing("d", 11)),
    ]
    jobs.watches = [too_old, too_old, streams(then="hang")]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: followed.names == {"b", "d"})
    assert followed.told == [
        ("a", False), ("b", False), ("c", False),  # the first list
        ("b", False), ("c", True),  # b changed, c is missing
        ("d", False), ("a", True),
    ]  # fmt: skip


async def test_a_list_whose_next_page_is_too_old_begins_anew(jobs: Jobs):
    jobs.lists = [
        page(7, thing("a", 3), following="next"),
        status(410, "Expired", "the provided continue parameter is too old"),
        page(9, thing("b", 8)),
    ]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: followed.informer.fresh)
    assert followed.names == {"b"}
    assert [one.get("continue") for one in jobs.queries(watch=False)] == [None, "next", None]


async def test_it_is_not_fresh_before_its_first_list_is_whole(jobs: Jobs):
    jobs.lists = [page(7, thing("a", 3), following="next"), hangs]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: followed.names == {"a"})
        with anyio.move_on_after(0.05):
            await followed.informer.wait_synced()
            pytest.fail("synced by half a list")
        assert followed.informer.why == "not listed yet"


@pytest.mark.parametrize(
    "end",
    [
        streams(event("ADDED", thing("x", 8)), b'{"type":"MODIFIED","obj', then="cut"),
        streams(event("ADDED", thing("x", 8)), event("FUTURE", {"metadata": {}})),
        streams(event("ADDED", thing("x", 8)), error_event(500, "etcd")),
        streams(event("ADDED", thing("x", 8)), bookmark(8)),
    ],
    ids=["cut", "unknown type", "error", "bookmark"],
)
async def test_a_watch_that_ends_is_resumed_where_it_was(jobs: Jobs, end: Answer):
    jobs.watches = [end, streams(event("MODIFIED", thing("x", 9)), then="hang")]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: len(followed.told) == 2)
    assert [one["resourceVersion"] for one in jobs.queries(watch=True)] == ["1", "8"]
    assert len(jobs.queries(watch=False)) == 1


@pytest.mark.parametrize(
    "line",
    [b"no json\n", b"[]\n", b'"text"\n', b"{}\n", b'{"type":"ADDED"}\n', event("ADDED", {})],
)
async def test_lines_that_are_no_events_lead_to_a_new_list(jobs: Jobs, line: bytes):
    jobs.lists = [page(1), page(9, thing("a", 8))]
    jobs.watches = [streams(line, then="hang"), streams(then="hang")]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: followed.names == {"a"} and followed.informer.fresh)


async def test_a_text_instead_of_a_list_is_an_outage(jobs: Jobs):
    jobs.lists = [text(200, "<html>sign in</html>"), page(9, thing("a", 8))]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: followed.names == {"a"} and followed.informer.fresh)


async def test_an_object_that_is_not_read_keeps_what_was_known_of_it(jobs: Jobs):
    odd = thing("a", 9)
    odd["data"] = ["not", "a", "map"]
    jobs.lists = [page(1, thing("a", 1, is_="old")), page(9, odd, thing("b", 8))]
    jobs.watches = [streams(event("MODIFIED", odd), error_event(410)), streams(then="hang")]
    with capture_logs() as logs:
        async with following(jobs.cluster) as followed:
            await followed.until(lambda: followed.names == {"a", "b"})
    assert followed.data("a") == {"is_": "old"}
    assert followed.told == [("a", False), ("b", False)]
    assert [one["log_level"] for one in logs if "is not read" in one["event"]] == ["warning"]


@pytest.mark.parametrize(
    "watch",
    [streams(), hangs_up, status(410, "Expired", "x"), streams(error_event(410)), text(200, "x\n")],
    ids=["empty", "no answer", "410", "410 event", "text"],
)
async def test_watches_that_are_of_no_use_never_make_it_run_hot(jobs: Jobs, watch: Answer):
    jobs.watches = [watch]
    pace = msgspec.structs.replace(FAST, first_pause_seconds=0.1, longest_pause_seconds=0.5)
    with capture_logs() as logs:
        async with following(jobs.cluster, pace=pace) as followed:
            await anyio.sleep(2.0)
            assert not followed.informer.fresh
            assert followed.informer.why
    assert 3 <= len(jobs.queries(watch=True)) <= 30  # hundreds, if it ran hot
    assert len(jobs.queries(watch=False)) <= 15
    warned = [one["why"] for one in logs if one["log_level"] == "warning"]
    assert len([why for why in warned if "held back" not in why]) <= 1


async def test_watches_that_bring_a_little_and_end_are_no_outage(jobs: Jobs):
    jobs.watches = [streams(bookmark(number)) for number in range(2, 30)]
    with capture_logs() as logs:
        async with following(jobs.cluster) as followed:
            await followed.until(lambda: len(jobs.queries(watch=True)) >= 20)
            assert followed.informer.fresh
            assert followed.healths == [""]
    assert not [one for one in logs if one["log_level"] == "warning"]


async def test_a_watch_that_brings_nothing_is_not_believed(jobs: Jobs):
    jobs.lists = [page(1, thing("a", 1)), hangs, page(9, thing("b", 8))]
    jobs.watches = [streams(then="hang")]
    pace = msgspec.structs.replace(FAST, idle_seconds=0.5)
    async with following(jobs.cluster, pace=pace) as followed:
        await followed.informer.wait_synced()
        await followed.until(lambda: not followed.informer.fresh)
        assert "brought nothing" in followed.informer.why
        await followed.until(lambda: len(jobs.queries(watch=False)) == 2)
        assert followed.names == {"a"}  # what is known of them is kept


async def test_a_server_that_asks_to_be_left_alone_is(jobs: Jobs):
    jobs.watches = [text(429, "slow down", Retry_After="1"), streams(then="hang")]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: "429" in followed.informer.why)
        await followed.until(lambda: followed.informer.fresh)
    moments = [
        moment
        for moment, one in zip(jobs.site.moments, jobs.site.requests, strict=True)
        if "watch" in one.query
    ]
    assert moments[1] - moments[0] >= 1


async def test_a_server_that_knows_nothing_of_where_the_watch_was_is_listed_anew(jobs: Jobs):
    ahead = status(504, "Timeout", "Too large resource version: 7, current: 2")
    jobs.lists = [page(7, thing("a", 3)), page(2, thing("a", 1))]

    async def from_two(request: Any) -> Any:
        begin = streams(then="hang") if request.query["resourceVersion"] == "2" else ahead
        return await begin(request)

    jobs.watches = [from_two]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: followed.informer.fresh)


async def test_what_it_has_is_not_believed_for_ever_while_it_lists(jobs: Jobs):
    jobs.lists = [page(1, thing("a", 1)), hangs]
    jobs.watches = [streams(bookmark(5), error_event(410))]
    pace = msgspec.structs.replace(FAST, idle_seconds=0.5)
    async with following(jobs.cluster, pace=pace) as followed:
        await followed.until(lambda: len(jobs.queries(watch=False)) == 2)
        assert followed.informer.fresh  # it may be over in a moment
        await followed.until(lambda: "nothing heard" in followed.informer.why)


async def test_pages_that_are_long_have_fewer_objects_the_next_time(jobs: Jobs):
    long = [thing(f"j{number}", number, text="x" * 100_000) for number in range(100)]
    jobs.lists = [page(7, *long, following="x"), page(7, *long), page(9, *long)]
    jobs.watches = [streams(bookmark(7), error_event(410)), streams(then="hang")]
    async with following(jobs.cluster, pace=msgspec.structs.replace(FAST, page=100)) as followed:
        await followed.until(lambda: len(jobs.queries(watch=True)) == 2)
    limits = [int(one["limit"]) for one in jobs.queries(watch=False)]
    assert limits[:2] == [100, 100]
    assert 35 <= limits[2] <= 45


async def test_an_outage_is_logged_when_it_begins_and_when_it_is_over(jobs: Jobs):
    sick = text(503, "not yet")
    jobs.watches = [streams(bookmark(5)), *[sick] * 8, streams(then="hang")]
    with capture_logs() as logs:
        async with following(jobs.cluster) as followed:
            await followed.informer.wait_synced()
            await followed.until(lambda: not followed.informer.fresh)
            await followed.until(lambda: followed.informer.fresh)
    said = [one["event"] for one in logs if one["event"].startswith("kubernetes watch")]
    assert said == ["kubernetes watch lost", "kubernetes watch is back"]
    assert [bool(why) for why in followed.healths] == [False, True, False]


async def test_what_is_not_allowed_is_said_once_with_the_remedy_and_tried_again(jobs: Jobs):
    no = status(403, "Forbidden", 'jobs.batch is forbidden: User "x" cannot list')
    jobs.lists = [no, no, no, page(2, thing("a", 1))]
    with capture_logs() as logs:
        async with following(jobs.cluster) as followed:
            await followed.until(lambda: len(jobs.queries(watch=False)) == 2)
            assert "grant the agent the verbs list and watch" in followed.informer.why
            assert 'User "x" cannot list' in followed.informer.why
            await followed.until(lambda: followed.informer.fresh)
    assert len([one for one in logs if one["log_level"] == "warning"]) == 1
    pauses = [b - a for a, b in zip(jobs.site.moments, jobs.site.moments[1:], strict=False)]
    assert min(pauses[:3]) >= 0.08


async def test_what_the_callback_raises_stops_nothing(jobs: Jobs):
    jobs.lists = [page(7, thing("a", 3), thing("b", 4))]
    gone = streams(event("DELETED", thing("a", 9)))
    jobs.watches = [gone, text(503, "not yet"), streams(then="hang")]
    async with following(jobs.cluster) as followed:
        followed.raises = True
        await followed.until(lambda: followed.names == {"b"} and not followed.informer.fresh)
        await followed.until(lambda: followed.informer.fresh)
    assert followed.told == [("a", False), ("b", False), ("a", True)]


async def test_a_deletion_of_what_nobody_saw_is_told_with_its_last_state(jobs: Jobs):
    jobs.watches = [streams(event("DELETED", thing("brief", 9)), then="hang")]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: followed.told == [("brief", True)])
        assert followed.names == set()


async def test_a_long_list_lets_others_run_meanwhile(jobs: Jobs):
    many = [thing(f"job-{number}", number, text="x" * 400) for number in range(20_000)]
    jobs.lists = [page(30_000, *many)]
    async with following(jobs.cluster) as followed:
        await followed.until(lambda: len(followed.told) > 1)
        assert len(followed.told) < 20_000
        await followed.until(lambda: followed.informer.fresh)
    assert len(followed.names) == 20_000


# A real API server


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"ours": "yes"}},
        "data": data,
    }


@pytest.fixture
async def through(proxy: ApiProxy, tmp_path: Path) -> AsyncGenerator[KubeCluster]:
    cluster = KubeCluster(config_file=proxy.write_kubeconfig(tmp_path / "config"), environ={})
    try:
        yield cluster
    finally:
        await cluster.close()


async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(work, *args)


async def test_a_real_server_is_followed_through_faults(
    cluster: Cluster, through: KubeCluster, proxy: ApiProxy, namespace: str
):
    path = MAPS.path(namespace)
    for name in ("kept", "gone", "changed"):
        await through.create(path, config_map(name))
    await through.create(path, {"metadata": {"name": "others"}, "data": {}})
    pace = Pace(page=2, idle_seconds=3.0, first_pause_seconds=0.05)
    async with following(
        through, kind=MAPS, namespace=namespace, selector="ours=yes", pace=pace
    ) as followed:
        await followed.informer.wait_synced()
        assert followed.names == {"kept", "gone", "changed"}
        assert proxy.count("list", "configmaps") == 2

        for number, fault in enumerate((proxy.cut, proxy.expire)):
            await followed.until(lambda: followed.informer.fresh and proxy.streams == 1)
            assert await in_thread(fault, "configmaps") == 1
            await through.patch(f"{path}/changed", {"data": {"step": str(number)}})
            await followed.until(lambda: followed.data("changed") == {"step": str(number)})  # noqa: B023

        await followed.until(lambda: followed.informer.fresh and proxy.streams == 1)
        for line in (b"no json", b'{"type":"FUTURE","object":{"metadata":{}}}', b"{}"):
            await in_thread(proxy.inject, "configmaps", line)
        await through.patch(f"{path}/changed", {"data": {"step": "words"}})
        await followed.until(lambda: followed.data("changed") == {"step": "words"})

        await followed.until(lambda: followed.informer.fresh and proxy.streams == 1)
        with proxy.freeze("configmaps"):
            await through.delete(f"{path}/gone", propagation="Background")
            await followed.until(lambda: followed.names == {"kept", "changed"})
        assert followed.told[-1] == ("gone", True)

        await followed.until(lambda: followed.informer.fresh)
        with proxy.down():
            await in_thread(cluster.delete, f"{path}/changed")
            await followed.until(lambda: not followed.informer.fresh)
        await followed.until(lambda: followed.informer.fresh and followed.names == {"kept"})


async def test_a_real_list_of_many_is_kept_whole(through: KubeCluster, namespace: str):
    path = MAPS.path(namespace)
    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(through.create, path, config_map(f"m-{number}"))
    async with following(
        through, kind=MAPS, namespace=namespace, selector="ours=yes", pace=Pace(page=7)
    ) as followed:
        await followed.informer.wait_synced()
        assert len(followed.names) == 60
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(through.delete, f"{path}/m-{number}")
        await followed.until(lambda: len(followed.names) == 30)
