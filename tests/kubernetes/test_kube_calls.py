"""Calls of one API server: what is repeated, what is not, how often, and whose an error is."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml
from cluster_tools import Cluster, NewNamespace
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
    wants,
)

from launch_async.adapters.runners.kubernetes.runner import KubernetesRunner
from launch_async.domain.errors import Unavailable
from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import BrokenOff, KubeRefused, Silence

pytestmark = pytest.mark.anyio

PODS = "/api/v1/namespaces/n/pods"
POD = f"{PODS}/p"
NAMED = {"kind": "Pod", "metadata": {"name": "p"}}
Clusters = Callable[..., KubeCluster]


@pytest.fixture
async def site() -> AsyncGenerator[KubeSite]:
    async with kube_site() as site:
        yield site


@pytest.fixture
async def kube(site: KubeSite, tmp_path: Path) -> AsyncGenerator[KubeCluster]:
    async with kube_of(site, tmp_path) as kube:
        yield kube


@asynccontextmanager
async def kube_of(
    site: KubeSite, tmp_path: Path, user: Any = None, **settings: Any
) -> AsyncGenerator[KubeCluster]:
    path = site.kubeconfig(tmp_path / "config", user)
    kube = KubeCluster(config_file=path, environ={}, **settings)
    try:
        yield kube
    finally:
        await kube.close()


async def test_a_call_says_who_asks_and_for_what(site: KubeSite, kube: KubeCluster):
    site.on("GET", PODS, answer({"items": []}))
    body = await kube.get(PODS, {"labelSelector": "a=b,c in (d)", "continue": "x+/="})
    assert json.loads(body) == {"items": []}
    assert dict(site.requests[0].query) == {"labelSelector": "a=b,c in (d)", "continue": "x+/="}
    assert site.logins == ["Bearer a-token"]


async def test_objects_are_made_changed_and_deleted_as_asked(site: KubeSite, kube: KubeCluster):
    for method in ("PATCH", "DELETE"):
        site.on(method, POD, answer({}))
    site.on("POST", PODS, answer({}))
    await kube.create(PODS, NAMED, dry_run=True)
    await kube.patch(POD, {"a": 1})
    await kube.patch(POD, {"a": 2}, kind="apply")
    await kube.patch(POD, [{"op": "remove"}], kind="json")
    await kube.delete(POD, propagation="Background", grace_seconds=0, uid="u")
    made, merged, applied, edited, deleted = site.requests
    assert dict(made.query) == {"dryRun": "All", "fieldManager": "launch-async"}
    assert [merged.content_type, applied.content_type, edited.content_type] == [
        "application/merge-patch+json",
        "application/apply-patch+yaml",
        "application/json-patch+json",
    ]
    assert applied.query["force"] == "true"
    assert "force" not in merged.query
    assert deleted.content_type == "application/json"
    assert [json.loads(body) for body in site.bodies] == [
        NAMED,
        {"a": 1},
        {"a": 2},
        [{"op": "remove"}],
        {
            "propagationPolicy": "Background",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": "u"},
        },
    ]


async def test_what_the_server_warns_of_is_given_to_the_caller(site: KubeSite, kube: KubeCluster):
    said = r'299 - "batch/v1beta1 is deprecated", 299 - "would violate \"restricted\""'
    site.on("POST", PODS, text(200, "{}", Warning=said), answer({}))
    warnings: list[str] = []
    for _ in range(2):
        await kube.create(PODS, NAMED, warnings=warnings)
    assert warnings == ["batch/v1beta1 is deprecated", 'would violate "restricted"']


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (404, "NotFound", {"not_found"}),
        (409, "AlreadyExists", {"exists", "conflict"}),
        (409, "Conflict", {"conflict"}),
        (403, "Forbidden", {"forbidden"}),
        (410, "Expired", {"expired"}),
        (422, "Invalid", {"invalid"}),
        (400, "BadRequest", {"invalid"}),
    ],
)
async def test_a_refusal_says_what_it_is_and_is_not_repeated(
    site: KubeSite, kube: KubeCluster, code: int, reason: str, said: set[str]
):
    site.on("GET", POD, status(code, reason, "the server's own words"))
    with pytest.raises(KubeRefused, match="the server's own words") as caught:
        await kube.get(POD)
    names = {"not_found", "exists", "conflict", "forbidden", "expired", "invalid"}
    assert {name for name in names if getattr(caught.value, name)} == said
    assert (caught.value.status, caught.value.reason) == (code, reason)
    assert len(site.asked) == 1


async def test_a_refusal_in_other_words_than_kubernetes_is_one(site: KubeSite, kube: KubeCluster):
    site.on("GET", POD, text(403, "<html>\n blocked by the firewall"))
    with pytest.raises(KubeRefused, match="<html> blocked by the firewall") as caught:
        await kube.get(POD)
    assert (caught.value.forbidden, caught.value.reason) == (True, "")


@pytest.mark.parametrize("sick", [text(500, "x"), text(502, "x"), text(503, "x"), hangs_up])
@pytest.mark.parametrize("verb", ["get", "create", "patch", "delete"])
async def test_a_call_that_may_be_repeated_outlasts_a_short_outage(
    site: KubeSite, kube: KubeCluster, sick: Answer, verb: str
):
    methods = {"get": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
    site.on(methods[verb], PODS, sick, sick, answer({"here": 1}))
    bodies = {"create": [NAMED], "patch": [{}]}.get(verb, [])
    assert json.loads(await getattr(kube, verb)(PODS, *bodies)) == {"here": 1}
    assert len(site.asked) == 3
    assert kube.view().retries in {1, 2}  # aiohttp repeats a lost GET by itself, once


async def test_what_has_no_name_is_not_made_twice(site: KubeSite, kube: KubeCluster):
    site.on("POST", PODS, hangs_up)
    with pytest.raises(Unavailable):
        await kube.create(PODS, {"metadata": {"generateName": "p-"}})
    assert len(site.asked) == 1


async def test_what_was_certainly_not_done_is_repeated_whatever_it_is(
    site: KubeSite, kube: KubeCluster
):
    site.on("POST", PODS, status(429, "TooManyRequests", "later", Retry_After="1"), answer({}))
    await kube.create(PODS, {"metadata": {"generateName": "p-"}})
    assert len(site.asked) == 2
    assert site.moments[1] - site.moments[0] >= 1


async def test_an_object_that_was_made_while_the_answer_got_lost_exists(
    site: KubeSite, kube: KubeCluster
):
    site.on("POST", PODS, hangs_up, status(409, "AlreadyExists", 'pods "p" already exists'))
    with pytest.raises(KubeRefused) as caught:
        await kube.create(PODS, NAMED)
    assert caught.value.exists


async def test_others_wait_too_when_the_server_asks_to_be_left_alone(
    site: KubeSite, kube: KubeCluster
):
    site.on("GET", POD, status(429, "TooManyRequests", "later", Retry_After="1"), answer({}))
    site.on("GET", PODS, answer({}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kube.get, POD)
        while not site.asked:
            await anyio.sleep(0.01)
        await anyio.sleep(0.05)
        await kube.get(PODS)
    assert min(site.moments[1:]) - site.moments[0] >= 1
    assert kube.view().throttled == 1


async def test_a_long_wait_is_the_callers(site: KubeSite, kube: KubeCluster):
    site.on("GET", POD, status(429, "TooManyRequests", "later", Retry_After="120"))
    with anyio.fail_after(5), pytest.raises(Unavailable, match="429: later") as caught:
        await kube.get(POD)
    assert caught.value.retry_after_seconds == 120
    with anyio.fail_after(5), pytest.raises(Unavailable, match="held back"):
        await kube.get(POD)
    assert len(site.asked) == 1


async def test_calls_keep_to_their_rate_and_watches_are_not_counted(site: KubeSite, tmp_path: Path):
    site.on("GET", POD, answer({}))
    site.on("GET", PODS, streams(b"{}\n"))
    async with kube_of(site, tmp_path, calls_per_second=20, burst=2) as kube:
        began = anyio.current_time()
        for _ in range(10):
            assert [line async for line in kube.lines(PODS, {}, idle_seconds=9)] == [b"", b"{}"]
        assert anyio.current_time() - began < 0.9
        async with anyio.create_task_group() as tasks:
            for _ in range(22):
                tasks.start_soon(kube.get, POD)
        moments = site.moments[10:]
        assert max(moments) - min(moments) >= 0.95


async def test_a_server_that_is_silent_is_left_alone_for_a_while(site: KubeSite, tmp_path: Path):
    site.on("GET", POD, hangs_up)
    site.on("GET", PODS, hangs_up)
    async with kube_of(site, tmp_path) as kube:
        for path in (POD, PODS):
            with pytest.raises(Unavailable):
                await kube.get(path)
        asked = len(site.asked)
        with pytest.raises(Unavailable, match=f"held back.*{site.url}") as caught:
            await kube.get(PODS)
        with pytest.raises(Unavailable, match="held back"):
            await anext(kube.lines(PODS, {}, idle_seconds=9))
        assert len(site.asked) == asked
        assert (caught.value.retry_after_seconds or 0) > 0
        assert kube.view().trips == 1


async def test_a_call_that_hangs_ends(site: KubeSite, tmp_path: Path):
    site.on("GET", POD, hangs)
    site.on("GET", PODS, hangs)
    site.on("GET", "/half", streams(b'{"items":', then="hang"))
    async with kube_of(site, tmp_path, call_seconds=0.2) as kube:
        with anyio.fail_after(10):
            for path in (POD, "/half"):
                with pytest.raises(Unavailable):
                    await kube.get(path)
            for begin in (kube.lines, kube.pieces):
                with pytest.raises(Unavailable, match="in time"):
                    await anext(begin(PODS, {}, idle_seconds=60))


async def test_an_answer_that_breaks_off_is_asked_for_again(site: KubeSite, kube: KubeCluster):
    site.on("GET", POD, streams(b'{"half":', then="cut"), answer({"whole": 1}))
    assert json.loads(await kube.get(POD)) == {"whole": 1}


async def test_a_redirect_is_not_followed_with_our_login(site: KubeSite, kube: KubeCluster):
    site.on("GET", POD, text(302, "", Location=f"{site.url}/elsewhere"))
    with pytest.raises(Unavailable, match="no API server"):
        await kube.get(POD)
    assert site.asked == [f"GET {POD}"]


async def test_a_server_that_is_not_there_is_named_with_a_remedy(site: KubeSite, tmp_path: Path):
    async with kube_site() as gone:
        pass
    async with kube_of(site, tmp_path, server=gone.url) as kube:
        with pytest.raises(
            Unavailable, match=rf"{gone.url} cannot be reached \(Connection refused\)"
        ):
            await kube.check()


async def test_a_check_tells_a_server_that_takes_our_login_from_one_that_does_not(
    site: KubeSite, kube: KubeCluster
):
    site.on("GET", "/api", answer({"versions": ["v1"]}))
    await kube.check()
    site.on("GET", "/api", status(401, "Unauthorized", "Unauthorized"))
    with pytest.raises(Unavailable, match=r"401.*log in anew"):
        await kube.check()
    site.on("GET", "/api", status(403, "Forbidden", "anonymous"))
    with pytest.raises(Unavailable, match="anonymous"):
        await kube.check()


async def test_a_token_that_was_replaced_on_disk_is_found(site: KubeSite, tmp_path: Path):
    site.on("GET", POD, wants("Bearer new", answer({})))
    token = tmp_path / "token"
    token.write_text("old\n")
    async with kube_of(site, tmp_path, {"tokenFile": "token"}) as kube:
        with pytest.raises(Unavailable, match="401"):
            await kube.get(POD)
        assert site.logins == ["Bearer old"]  # the same one again is not tried
    async with kube_of(site, tmp_path, {"tokenFile": "token"}) as kube:
        site.on("GET", PODS, wants("Bearer old", answer({})))
        await kube.get(PODS)
        token.write_text("new\n")
        await kube.get(POD)
        assert site.logins[-2:] == ["Bearer old", "Bearer new"]


async def test_many_calls_that_are_refused_at_once_log_in_once(site: KubeSite, tmp_path: Path):
    site.on("GET", POD, wants("Bearer new", answer({})))
    path = site.kubeconfig(tmp_path / "config", {"token": "old"})
    kube = KubeCluster(config_file=path, environ={})
    await kube.open()
    site.kubeconfig(path, {"token": "new"})
    try:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(kube.get, POD)
    finally:
        await kube.close()
    assert set(site.logins) <= {"Bearer old", "Bearer new"}


async def test_lines_of_any_length_are_whole(site: KubeSite, kube: KubeCluster):
    long = b"x" * (6 << 20)
    site.on(
        "GET", PODS, streams(b"on", b"e\ntwo\nth", b"ree\n", b"\n", long, b"\nhalf", then="cut")
    )
    async with aclosing(kube.lines(PODS, {"watch": "1"}, idle_seconds=9)) as watch:
        lines = [await anext(watch) for _ in range(6)]
        with pytest.raises(BrokenOff):
            await anext(watch)
    assert lines == [b"", b"one", b"two", b"three", b"", long]


async def test_a_watch_says_that_it_is_open_before_anything_comes(
    site: KubeSite, kube: KubeCluster
):
    site.on("GET", PODS, streams(then="hang"))
    async with aclosing(kube.lines(PODS, {}, idle_seconds=60)) as watch:
        with anyio.fail_after(5):
            assert await anext(watch) == b""


@pytest.mark.parametrize("verb", ["lines", "pieces"])
async def test_a_stream_that_brings_nothing_ends(site: KubeSite, kube: KubeCluster, verb: str):
    site.on("GET", PODS, streams(b"one\n", then="hang"))
    with anyio.fail_after(5), pytest.raises(Silence):
        async for _ in getattr(kube, verb)(PODS, {}, idle_seconds=0.2):
            pass


async def test_logs_come_in_pieces_of_bounded_size(site: KubeSite, kube: KubeCluster):
    site.on("GET", PODS, streams(b"x" * 300_000, b"y"))
    pieces = [piece async for piece in kube.pieces(PODS, {"follow": "true"})]
    assert b"".join(pieces) == b"x" * 300_000 + b"y"
    assert max(map(len, pieces)) <= 64 * 1024


@pytest.mark.parametrize("verb", ["lines", "pieces"])
async def test_a_stream_that_is_refused_is_none(site: KubeSite, kube: KubeCluster, verb: str):
    begin = getattr(kube, verb)
    site.on("GET", PODS, status(410, "Expired", "too old"))
    with pytest.raises(KubeRefused) as refused:
        await anext(begin(PODS, {}, idle_seconds=9))
    assert refused.value.expired
    site.on("GET", PODS, text(429, "slow down", Retry_After="7"))
    with pytest.raises(Unavailable) as busy:
        await anext(begin(PODS, {}, idle_seconds=9))
    assert busy.value.retry_after_seconds == 7


async def test_the_proxy_of_the_clusters_entry_is_used(site: KubeSite, tmp_path: Path):
    site.on("GET", POD, answer({"through": "the proxy"}))
    path = site.kubeconfig(
        tmp_path / "config", cluster={"server": "http://api.invalid", "proxy-url": site.url}
    )
    kube = KubeCluster(config_file=path, environ={})
    try:
        assert b"through" in await kube.get(POD)
    finally:
        await kube.close()
    assert site.requests[0].headers["Host"] == "api.invalid"


async def test_a_login_never_shows_in_an_error(site: KubeSite, tmp_path: Path):
    site.on("GET", POD, hangs_up)
    async with kube_of(site, tmp_path, {"token": "very-secret"}) as kube:
        with pytest.raises(Unavailable) as caught:
            await kube.get(POD)
    error: BaseException | None = caught.value
    while error is not None:
        assert "very-secret" not in f"{error!r} {error} {vars(error)}"
        error = error.__cause__ or error.__context__


# A real API server


async def test_a_real_server_does_what_calls_say(
    cluster: Cluster, new_namespace: NewNamespace, tmp_path: Path
):
    namespace = await anyio.to_thread.run_sync(partial(new_namespace, pod_security="restricted"))
    kube = KubeCluster(config_file=cluster.kubeconfig, environ={})
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    one = {"metadata": {"name": "one"}, "data": {"a": "1"}}
    try:
        await kube.open()
        assert kube.namespace
        await kube.check()
        await kube.create(path, one, dry_run=True)
        with pytest.raises(KubeRefused) as missing:
            await kube.get(f"{path}/one")
        assert missing.value.not_found
        uid = json.loads(await kube.create(path, one))["metadata"]["uid"]
        with pytest.raises(KubeRefused) as there:
            await kube.create(path, one)
        assert there.value.exists
        await kube.patch(f"{path}/one", {"data": {"a": None, "b": "2"}})
        await kube.patch(f"{path}/one", {"data": {"c": "3"}}, kind="strategic")
        await kube.patch(
            f"{path}/one", [{"op": "add", "path": "/data/d", "value": "4"}], kind="json"
        )
        applied = {"apiVersion": "v1", "kind": "ConfigMap", **one, "data": {"e": "5"}}
        said = json.loads(await kube.patch(f"{path}/one", applied, kind="apply"))
        assert said["data"] == {"b": "2", "c": "3", "d": "4", "e": "5"}
        with pytest.raises(KubeRefused) as other:
            await kube.delete(f"{path}/one", uid="another")
        assert other.value.conflict
        await kube.delete(f"{path}/one", uid=uid, propagation="Background")
        with pytest.raises(KubeRefused) as wrong:
            await kube.create(path, {"metadata": {"name": "Not A Name"}})
        assert (wrong.value.invalid, wrong.value.reason) == (True, "Invalid")
        with pytest.raises(KubeRefused) as refused:
            await kube.create(
                f"/api/v1/namespaces/{namespace}/pods",
                {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            )
        assert refused.value.forbidden
        assert "violates PodSecurity" in refused.value.message
    finally:
        await kube.close()


async def test_a_real_server_does_not_take_a_wrong_token(cluster: Cluster, tmp_path: Path):
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{**one, "user": {"token": "wrong"}} for one in config["users"]]
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    kube = KubeCluster(config_file=path, environ={})
    try:
        with pytest.raises(Unavailable, match="401"):
            await kube.check()
    finally:
        await kube.close()


async def test_a_cluster_that_has_just_answered_is_not_asked_whether_it_is_there(
    site: KubeSite, kube: KubeCluster, tmp_path: Path
):
    runner = KubernetesRunner(connect=lambda _: kube, folder=tmp_path)
    site.on("GET", "/api", answer({"versions": ["v1"]}))
    await runner.check()
    await runner.check()
    assert site.asked == ["GET /api"]
    site.on("GET", POD, text(503, "overloaded"))
    with pytest.raises(Unavailable):
        await kube.get(POD)
    await runner.check()
    assert site.asked[-2:] == [f"GET {POD}", "GET /api"]
