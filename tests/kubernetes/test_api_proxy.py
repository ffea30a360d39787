"""Each fault of the proxy before the API server is what a client sees, and nothing else breaks."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster, job, until

pytestmark = pytest.mark.anyio

JOBS = "/apis/batch/v1/namespaces/{}/jobs"


@pytest.fixture
def jobs(proxy: ApiProxy, namespace: str) -> str:
    return proxy.url + JOBS.format(namespace)


@pytest.fixture
async def client(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


def suspended(name: str) -> dict:
    return job(name, "none", ["x"], suspend=True)


@asynccontextmanager
async def watching(client: aiohttp.ClientSession, jobs: str) -> AsyncIterator[aiohttp.StreamReader]:
    async with client.get(jobs, params={"watch": "true"}) as answer:
        assert answer.status == 200
        yield answer.content


async def test_it_passes_everything_on_and_counts_it(
    proxy: ApiProxy, jobs: str, client: aiohttp.ClientSession, cluster: Cluster, namespace: str
) -> None:
    async with watching(client, jobs) as watch:
        async with client.post(jobs, json=suspended("one")) as answer:
            assert answer.status == 201
        event = json.loads(await watch.readline())
    async with client.get(jobs) as answer:
        (found,) = (await answer.json())["items"]
    async with client.get(f"{jobs}/one/status") as answer:
        assert answer.status == 200
    # By default a Job stays until its pods are set free.
    now = {"propagationPolicy": "Background"}
    async with client.delete(f"{jobs}/one", params=now) as answer:
        assert answer.status == 200

    assert (event["type"], event["object"]["metadata"]["uid"]) == (
        "ADDED",
        found["metadata"]["uid"],
    )
    assert cluster.find(JOBS.format(namespace) + "/one") is None
    assert dict(proxy.counts()) == {
        "watch jobs": 1,
        "create jobs": 1,
        "list jobs": 1,
        "get jobs/status": 1,
        "delete jobs": 1,
    }
    assert proxy.count("list", "/jobs$") == 1


async def test_a_clients_own_credentials_count(
    proxy: ApiProxy, jobs: str, client: aiohttp.ClientSession
) -> None:
    async with client.get(jobs, headers={"Authorization": "Bearer nobody"}) as answer:
        assert answer.status == 401


async def test_an_answer_is_planned_for_one_verb_and_path(
    proxy: ApiProxy, jobs: str, client: aiohttp.ClientSession, cluster: Cluster, namespace: str
) -> None:
    with proxy.answer("create", "/jobs$", 429, retry_after=3, times=1) as fault:
        async with client.post(jobs, json=suspended("late")) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
            assert (await answer.json())["reason"] == "TooManyRequests"
        async with client.get(jobs) as answer:
            assert (answer.status, (await answer.json())["items"]) == (200, [])
        async with client.post(jobs, json=suspended("late")) as answer:
            assert answer.status == 201
    assert fault.hits == 1
    with proxy.answer("get", "/jobs/late$", 200, body=b'{"kind": '):
        async with client.get(f"{jobs}/late") as answer:
            assert await answer.read() == b'{"kind": '
    with proxy.answer("watch", "/jobs$", 410, in_stream=True):
        async with watching(client, jobs) as watch:
            event = json.loads(await watch.read())
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_a_lost_answer_counts_all_the_same(
    proxy: ApiProxy, jobs: str, client: aiohttp.ClientSession, cluster: Cluster, namespace: str
) -> None:
    with proxy.lose("create", "/jobs$"), pytest.raises(aiohttp.ServerDisconnectedError):
        await client.post(jobs, json=suspended("lost"))
    assert cluster.find(JOBS.format(namespace) + "/lost") is not None
    with proxy.halve("list", "/jobs$"):
        async with client.get(jobs) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_it_hangs_and_thinks_until_it_is_let_go(
    proxy: ApiProxy, jobs: str, client: aiohttp.ClientSession
) -> None:
    with proxy.hang("list", "/jobs$") as fault, pytest.raises(TimeoutError):
        await client.get(jobs, timeout=aiohttp.ClientTimeout(0.3))
    assert fault.hits == 1
    with proxy.delay("list", "/jobs$", 0.3):
        began = time.monotonic()
        async with client.get(jobs) as answer:
            assert answer.status == 200
    assert time.monotonic() - began >= 0.3


async def test_watches_break_in_every_way(
    proxy: ApiProxy, jobs: str, client: aiohttp.ClientSession, cluster: Cluster, namespace: str
) -> None:
    async with watching(client, jobs) as watch:
        assert proxy.inject("/jobs$", b'{"type":"NEWS"}') == 1
        assert json.loads(await watch.readline()) == {"type": "NEWS"}
        assert proxy.cut("/jobs$") == 1
        with pytest.raises(aiohttp.ClientPayloadError):
            await watch.read()
    async with watching(client, jobs) as watch:
        proxy.cut("/jobs$", in_line=False)
        assert await watch.read() == b""
    async with watching(client, jobs) as watch:
        proxy.expire("/jobs$")
        assert json.loads(await watch.read())["object"]["reason"] == "Expired"
    async with watching(client, jobs) as watch:
        with proxy.freeze("/jobs$"):
            cluster.apply(suspended("unseen"), namespace)
            with pytest.raises(TimeoutError), anyio.fail_after(0.5):
                await watch.readline()
            assert proxy.streams == 1
    await until(lambda: proxy.streams == 0)


async def test_down_is_a_refusal_and_over_when_it_is_over(
    proxy: ApiProxy, jobs: str, client: aiohttp.ClientSession
) -> None:
    async with watching(client, jobs) as watch:
        with proxy.down():
            with pytest.raises(aiohttp.ClientError):
                await watch.read()
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get(jobs)
    async with client.get(jobs) as answer:
        assert answer.status == 200
