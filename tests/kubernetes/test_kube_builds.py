"""Builds in the real cluster: a real BuildKit in its pods, and a real registry to push to."""

import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NoReturn

import anyio
import anyio.to_thread
import msgspec
import pytest
from api_proxy import ApiProxy
from cluster_tools import Cluster, until
from kube_builds import (
    BUILDKIT_IMAGE,
    BuildSite,
    Code,
    Heard,
    Logins,
    agent_targets,
    an_order,
    claimed,
    job_body,
    make_buildkit_image,
    make_kaniko_stand_in,
    push_tiny,
    sleeping,
    unique_seconds,
)

from build_tools import BUILDKIT_REMEDY, find_buildkit
from launch_async.config.images import RegistryLoginConfig
from launch_async.config.kubernetes import KubernetesSection
from launch_async.config.model import AgentSection, LaunchConfig
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.secret import Secret
from launch_async.ports.images import RegistryLogin
from launch_async.ports.runner import ImageWork, Work
from registry_servers import Registries, Registry

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.docker,
    pytest.mark.usefixtures("buildkit_on_node"),
]
Miss = Callable[[str], NoReturn]


@pytest.fixture(scope="module")
def buildkit_on_node(
    cluster: Cluster, tiny_image: str, miss: Miss, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """BuildKit's image, where pods need not pull it."""
    found = find_buildkit() or miss(f"no BuildKit here: {BUILDKIT_REMEDY}")
    if not cluster.is_ours:
        miss("builds share a folder of this machine with a cluster on it: unset KUBECONFIG")
    make_buildkit_image(found.programs, tiny_image, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def pushed_base(tiny_image: str, registries: Registries) -> str:
    return push_tiny(tiny_image, registries.open)


@pytest.fixture
def site(
    cluster: Cluster,
    namespace: str,
    pushed_base: str,
    registries: Registries,
    tmp_path: Path,
) -> Iterator[BuildSite]:
    volume = tmp_path / "volume"
    volume.mkdir()
    with claimed(cluster, namespace, volume):
        yield BuildSite(
            cluster=cluster,
            namespace=namespace,
            registry=registries.open,
            base=pushed_base,
            volume=volume,
            folder=tmp_path,
            kubeconfig=cluster.kubeconfig,
        )


async def test_a_jobs_code_is_built_in_the_cluster_once_and_a_pod_runs_it(
    site: BuildSite, tmp_path: Path
) -> None:
    recipe = f"FROM {site.base}\nARG NAME\nCOPY sub/file /file\nRUN echo $NAME >>/file\n"
    code = Code({"Dockerfile": recipe, "sub/file": f"{uuid.uuid4()} for "})
    config = LaunchConfig(
        builder=site.block(**{"build-args": {"NAME": "all"}}),
        agent=AgentSection(
            state_dir=str(tmp_path / "state"),
            kubernetes=KubernetesSection(config_file=str(site.kubeconfig)),
            registries=(RegistryLoginConfig(host=site.registry.host, insecure=True),),
        ),
    )
    heard = Heard()
    works: list[Work] = []

    async with agent_targets(config, code) as targets:
        builder = targets["kubernetes"].builder
        works.extend([await builder.build(an_order(heard)) for _ in range(2)])
        assert await until(site.is_clean, seconds=15)

    first, again = works
    assert isinstance(first, ImageWork)
    assert first == again
    assert heard.said.count("step 3/3: RUN echo all >>/file") == 1
    [log] = heard.logs
    assert "DONE" in log.read_text()
    said = await anyio.to_thread.run_sync(site.run, first.image, "cat", "/file")
    assert said == f"{code.files['sub/file']}all\n"


async def test_a_failed_step_is_named_and_the_log_is_whole(
    site: BuildSite, proxy: ApiProxy, tmp_path: Path
) -> None:
    """Although the log breaks off again and again while it is followed."""
    lines = "for n in $(seq 1 25); do echo line-$n; sleep 0.1; done"
    order = site.order(f"FROM BASE\nRUN true\nRUN {lines}; exit 7\n")
    kubeconfig = proxy.write_kubeconfig(tmp_path / "proxied")
    behind = msgspec.structs.replace(site, kubeconfig=kubeconfig)

    async def cut() -> None:
        while True:
            await anyio.sleep(0.7)
            await anyio.to_thread.run_sync(lambda: proxy.cut("/log", in_line=False))

    async with behind.life() as builder:
        with pytest.raises(ItemError) as raised:
            await _beside(cut, builder.build(order, unheard))

    assert raised.value.reason is Reason.BUILD_FAILED
    said = str(raised.value)
    assert said.startswith("Step 3/3 of the Dockerfile exited with 7: RUN for n in")
    assert said.endswith("line-25")
    printed = re.findall(r"^#\d+ \d+\.\d+ line-(\d+)$", order.log.read_text(), re.MULTILINE)
    assert printed == [str(number) for number in range(1, 26)]
    assert await until(site.is_clean, seconds=15)


async def test_a_cancelled_build_is_gone_with_all_that_it_runs(site: BuildSite) -> None:
    seconds = unique_seconds()
    order = site.order(f"FROM BASE\nRUN sleep {seconds}\n")
    began: list[float] = []

    async with site.life() as builder:
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                await until(lambda: sleeping(seconds))
                began.append(time.monotonic())
                scope.cancel()

            await _beside(cancel, builder.build(order, unheard))
        took = time.monotonic() - began[0]
        left = [*site.jobs(), *site.pods(), *site.volume.iterdir()]

    assert left == []
    assert not sleeping(seconds)
    assert took < 10


async def test_logins_are_in_a_secret_of_the_build_alone(
    site: BuildSite, registries: Registries
) -> None:
    host = registries.login.host
    image = f"{host}/launch-async-test/in-cluster:{uuid.uuid4().hex[:12]}"
    order = site.order("FROM BASE\nRUN true\n", image=image)
    async with site.life() as builder:
        with pytest.raises(ItemError, match=f"{host} does not let this agent push") as raised:
            await builder.build(order, unheard)
    assert raised.value.reason is Reason.REGISTRY_DENIED

    login = _login_of(registries.login)
    seen: list[str] = []
    owners: list[str] = []

    async def look() -> None:
        await until(site.pods)
        [secret] = await until(site.secrets)
        [job] = site.jobs()
        owners.extend(one["uid"] for one in secret["metadata"]["ownerReferences"])
        assert owners == [job["metadata"]["uid"]]
        seen.append(json.dumps([job, site.pods()]))

    async with site.life(logins=Logins({host: login})) as builder:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            await builder.build(order, unheard)
        assert await until(site.is_clean, seconds=15)
    [shown] = seen
    assert BUILDKIT_IMAGE in shown
    assert login.password.reveal() not in shown


async def test_a_killed_agents_build_is_found_and_not_done_twice(site: BuildSite) -> None:
    identity, mark = f"agent-{uuid.uuid4().hex}", uuid.uuid4().hex
    order = site.order(f"FROM BASE\nRUN echo {mark} && sleep 3 && echo {mark} >/made\n")

    with site.killable(order, identity) as agent:
        await until(lambda: order.log.exists() and mark in order.log.read_text())
        agent.kill()
    [job] = site.jobs()
    assert [path.name for path in site.volume.iterdir()] == [job["metadata"]["name"]]

    uids: set[str] = set()

    async def look() -> None:
        while True:
            found = await anyio.to_thread.run_sync(site.jobs)
            uids.update(one["metadata"]["uid"] for one in found)
            await anyio.sleep(0.2)

    async with site.life(identity=identity) as builder:
        await _beside(look, builder.build(order, unheard))
        assert await until(site.is_clean, seconds=15)

    assert uids == {job["metadata"]["uid"]}
    assert order.log.read_text().count(f"RUN echo {mark}") == 1
    said = await anyio.to_thread.run_sync(site.run, order.image, "cat", "/made")
    assert said == f"{mark}\n"


async def test_a_build_without_its_agent_ends_at_its_limit(site: BuildSite) -> None:
    seconds = unique_seconds()
    order = site.order(f"FROM BASE\nRUN sleep {seconds}\n")

    async with site.life(site.block(timeout=4)) as builder:
        with pytest.raises(ItemError, match="activeDeadlineSeconds of 4 s"):
            await builder.build(order, unheard)
        assert await until(site.is_clean, seconds=15)
    assert not sleeping(seconds)


async def test_what_only_an_operator_can_mend_is_told_soon(site: BuildSite) -> None:
    heard: list[str] = []
    block = site.block(cluster={"image": "127.0.0.1:9/no/buildkit:1"})
    async with site.life(block, start_seconds=1) as builder:
        with pytest.raises(Unavailable, match=r"does not begin: image .*no/buildkit:1 cannot be"):
            await builder.build(site.order("FROM BASE\n"), heard.append)
        assert await until(site.is_clean, seconds=15)
    assert any("cannot be pulled" in text for text in heard)

    block = site.block(cluster={"namespace": "no-such-place"})
    async with site.life(block) as builder:
        with pytest.raises(Unavailable, match="Make the namespace no-such-place"):
            await builder.build(site.order("FROM BASE\n"), unheard)
    assert site.is_clean()


async def test_a_claim_that_is_not_there_is_told_with_its_remedy(site: BuildSite) -> None:
    claim = f"no-claim-{uuid.uuid4().hex[:8]}"
    place = re.escape(f"the namespace {site.namespace}")
    async with site.life(site.block(cluster={"context-claim": claim})) as builder:
        with (
            anyio.fail_after(45),
            pytest.raises(Unavailable, match=f"{place} has no .* claim {claim}") as raised,
        ):
            await builder.build(site.order("FROM BASE\n"), unheard)
        assert await until(site.is_clean, seconds=15)
    assert "context-claim" in str(raised.value)


@pytest.fixture(scope="module")
def kaniko_stand_in(
    buildkit_on_node: None, tiny_image: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    make_kaniko_stand_in(tiny_image, tmp_path_factory.mktemp("stand-in"))


@pytest.mark.usefixtures("kaniko_stand_in")
async def test_what_takes_kanikos_arguments_builds_as_w_and_b_configures_it(
    site: BuildSite,
) -> None:
    heard: list[str] = []
    good = site.order("FROM BASE\nRUN cat sub/file\n", {"sub/file": "good day\n"})
    bad = site.order("FROM BASE\nENV A=b\nRUN seq 1 30; exit 7\nRUN true\n")

    async with site.life(site.kaniko_block()) as builder:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(builder.build, good, heard.append)
            with pytest.raises(ItemError) as raised:
                await builder.build(bad, unheard)
            first, *rest = str(raised.value).splitlines()
            assert first == "Step 3 of the Dockerfile exited with 7: RUN seq 1 30; exit 7"
            assert rest[-20:] == [str(number) for number in range(11, 31)]
        assert await until(site.is_clean, seconds=15)

    assert heard[-2:] == ["step 2: RUN cat sub/file", "pushing the image"]
    assert "good day" in good.log.read_text()


async def test_the_api_server_knows_all_that_the_jobs_of_builds_say(site: BuildSite) -> None:
    logins = Logins({site.registry.host: _login_of(Registry("", "name", "sesame"))})
    path = f"/apis/batch/v1/namespaces/{site.namespace}/jobs?dryRun=All&fieldValidation=Strict"
    rootless = site.block(cluster={"privileged": False, "service-account": "builder"})
    for block in (site.kaniko_block(), rootless, site.block()):
        body = await job_body(block, site.order("FROM BASE\n"), logins)
        made = site.cluster.call("POST", path, body)
        # What the API server keeps is what was asked for: it drops nothing, and only adds.
        assert made["spec"]["backoffLimit"] == 0
        [container] = made["spec"]["template"]["spec"]["containers"]
        [asked] = body["spec"]["template"]["spec"]["containers"]
        assert asked.items() <= {**container, "env": asked["env"]}.items()


async def _beside(work: Callable[[], Coroutine[Any, Any, None]], build: Awaitable[None]) -> None:
    """Do something while an image is built; the error is the build's."""
    failed: list[Exception] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        try:
            await build
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)
        tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]


def unheard(_: str) -> None:
    """Nobody follows the build."""


def _login_of(registry: Registry) -> RegistryLogin:
    return RegistryLogin(username=registry.username or "", password=Secret(registry.password or ""))
