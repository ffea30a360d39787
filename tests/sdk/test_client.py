"""The SDK against the real control plane: jobs, queues, items and how they are followed."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from launch_async.adapters.queues.wandb import WandbQueueService
from launch_async.domain.errors import ConfigError, Unavailable
from launch_async.domain.ids import QueueRef
from launch_async.domain.item import Item
from launch_async.domain.outcome import Outcome
from launch_async.sdk.client import ItemStatus, LaunchClient, RunStatus, read_folder
from launch_async.sdk.follow import Progress, follow
from launch_async.wire.operations import LAUNCH_PROJECT, UPSERT_RUN
from launch_async.wire.transport import RequestRefused
from real_server import ENTITY, RealServer, real_server

pytestmark = pytest.mark.anyio

SPEC = {"project": "p", "docker": {"docker_image": "img"}}


@pytest.fixture
async def server(tmp_path: Path, anyio_backend: str) -> AsyncGenerator[RealServer]:
    async with real_server(tmp_path / "server") as running:
        yield running


def folder(tmp_path: Path) -> Path:
    source = tmp_path / "src"
    for name in ("train.py", "lib/a.py", ".git/config", "wandb/run", "lib/__pycache__/a.pyc"):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (source / "link").symlink_to("/etc/hostname")
    return source


def test_a_folder_is_read_without_what_is_not_its_code(tmp_path: Path):
    files = read_folder(folder(tmp_path))
    assert files == {"train.py": b"train.py", "lib/a.py": b"lib/a.py"}


def test_an_unusable_folder_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ConfigError, match="is not a folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(ConfigError, match="holds no files"):
        read_folder(tmp_path)


async def test_the_same_code_again_is_the_same_version(server: RealServer, tmp_path: Path):
    async def make() -> str:
        return await server.client.create_code_job(
            folder(tmp_path) if not (tmp_path / "src").exists() else tmp_path / "src",
            project="p",
            name="j",
            entrypoint=["python", "train.py"],
        )

    assert await make() == await make() == f"{ENTITY}/p/j:latest"


async def test_an_item_is_followed_to_its_end(server: RealServer):
    await server.client.upsert_queue("q", resource="local-container", config={"env": ["A=1"]})
    item_id = await server.client.push("q", SPEC)
    queue = QueueRef(ENTITY, LAUNCH_PROJECT, "q")
    agent = WandbQueueService(server.transport, queues=[queue], hostname="h", agent_config={})
    words: list[str] = []
    async for progress in follow(
        server.client, queue="q", item_id=item_id, project="p", interval_seconds=0.01
    ):
        words.append(progress.word)
        match len(words):
            case 1:
                await agent.register()
                [item] = await agent.pop([queue])
                assert isinstance(item, Item)
                assert item.spec.resource_args == {"env": ["A=1"]}
                assert await agent.ack(item)
            case 2:
                await agent.fail(item, Outcome(failed=True, message="no"), files=[])
    assert words == ["queued", "building", "failed"]
    assert progress.item.message == "no"


async def test_a_run_is_shown_as_it_is(server: RealServer):
    assert await server.client.run("p", "r1") is None
    made = {"name": "r1", "displayName": "fine", "project": "p", "entity": ENTITY, "jobType": None}
    await server.transport.execute(UPSERT_RUN, made)
    run = await server.client.run("p", "r1")
    assert run is not None
    assert (run.run_id, run.name, run.config, run.steps) == ("r1", "fine", {}, 0)


async def test_a_push_to_no_queue_is_refused_with_the_services_text(server: RealServer):
    await server.client.upsert_queue("q", resource="local-process", config={})
    with pytest.raises((RequestRefused, ConfigError), match="gpu"):
        await server.client.push("gpu", SPEC)


class Flaky(LaunchClient):
    """Answers what it is told to, one look after the other."""

    def __init__(self, *looks: ItemStatus | Exception | None) -> None:
        self.entity = ENTITY
        self._looks = list(looks)

    async def item(self, queue: str, item_id: str) -> ItemStatus | None:
        look = self._looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look

    async def run(self, project: str, run_id: str) -> RunStatus | None:
        return None


async def followed(client: LaunchClient) -> list[Progress]:
    with anyio.fail_after(5):
        return [
            progress
            async for progress in follow(
                client, queue="q", item_id="i", project="p", interval_seconds=0.0
            )
        ]


async def test_an_outage_while_following_is_waited_out():
    looks = (ItemStatus(state="PENDING"), Unavailable("down"), ItemStatus(state="FINISHED"))
    assert [one.item.state for one in await followed(Flaky(*looks))] == [
        "PENDING",
        "PENDING",
        "FINISHED",
    ]


async def test_an_item_that_is_gone_was_stopped():
    seen = await followed(Flaky(ItemStatus(state="PENDING"), None))
    assert seen[-1].item.state == "STOPPED"
    assert "removed" in (seen[-1].item.message or "")
