"""The flow from jobs to images: what is shared, what is waited for, what is left behind."""

from pathlib import Path

import anyio
import pytest
from maker_site import FILES, Hearer, Site, failure, site_in, until

from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.kit.clock import unix_now

pytestmark = pytest.mark.anyio


async def test_many_items_of_one_content_share_one_build_and_hear_how_it_goes(tmp_path: Path):
    """Of three jobs, too: their code is equal."""
    async with site_in(tmp_path) as site:
        site.builder.may_end = anyio.Event()
        for job in "BC":
            site.write(job)
        hearers = [Hearer() for _ in range(100)]
        images: list[str] = []

        async def ask(number: int) -> None:
            order = site.order("ABC"[number % 3], hearers[number], run=f"r{number}")
            images.append((await site.build(order)).image)

        async with anyio.create_task_group() as asking:
            for number in range(100):
                asking.start_soon(ask, number)
            await until(lambda: all("step 1/1" in hearer.said for hearer in hearers))
            site.builder.may_end.set()
        assert len(site.builder.orders) == 1
        assert len(images) == 100
        assert len(set(images)) == 1
        assert {hearer.log for hearer in hearers} == {site.builder.orders[0].log}
        assert site.builder.checks <= 2
        assert len(site.bases.asked) == 1
        await site.build()
        assert len(site.builder.orders) == 1


async def test_what_builds_an_image_is_all_that_the_recipe_says(tmp_path: Path):
    async with site_in(
        tmp_path, destination="r.example.com/team/jobs", platform="linux/amd64"
    ) as one:
        work = await one.build()
        [order] = one.builder.orders
        assert work.image == order.image
        assert order.image.startswith("r.example.com/team/jobs:la-")
        assert (order.push, order.bases, order.platform) == (True, ("base",), "linux/amd64")
        assert one.builder.contexts == [FILES | {order.dockerfile: FILES["Dockerfile"]}]


@pytest.mark.parametrize("wanted", [True, False])
async def test_builds_share_a_cache_only_if_the_operator_wants_it(wanted: bool, tmp_path: Path):
    async with site_in(tmp_path, cache_mounts=wanted) as site:
        site.builder.has_mounts = True
        site.write("B", {"train.py": "", "requirements.txt": "wandb\n"})
        await site.build(site.order("B", dockerfile=None))
        [order] = site.builder.orders
        assert ("--mount" in site.builder.contexts[0][order.dockerfile]) is wanted


async def test_an_image_that_comes_while_a_slot_is_waited_for_is_not_built(tmp_path: Path):
    async with site_in(tmp_path) as site:
        hearer = Hearer()
        async with site.slots, anyio.create_task_group() as asking:
            await site.slots.acquire_on_behalf_of(other := object())
            asking.start_soon(site.build, site.order(hearer=hearer))
            await until(lambda: hearer.said and "slot" in hearer.said[-1])
            [looked_for] = site.store.asked
            site.store.digests[looked_for] = "sha256:of another agent"
            site.slots.release_on_behalf_of(other)
        assert site.builder.orders == []


async def test_who_leaves_does_not_end_the_build_of_others_and_the_last_one_does(tmp_path: Path):
    async with site_in(tmp_path) as site:
        site.builder.may_end = anyio.Event()
        scopes = [anyio.CancelScope() for _ in range(2)]

        async def ask(number: int) -> None:
            with scopes[number]:
                await site.build(site.order(run=f"r{number}"))

        async with anyio.create_task_group() as asking:
            for number in range(2):
                asking.start_soon(ask, number)
            await site.builder.begun.wait()
            scopes[0].cancel()
            await anyio.wait_all_tasks_blocked()
            assert site.slots.borrowed_tokens == 1
            scopes[1].cancel()
        await until(lambda: site.slots.borrowed_tokens == 0)
        assert list((site.folder / "staged").glob("*/*")) == []
        assert site.codes.uses == 0


async def test_a_build_that_winds_down_takes_nothing_from_the_next_one_of_its_tag(tmp_path: Path):
    async with site_in(tmp_path) as site:
        site.builder.may_end, site.builder.lingers = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as asking:
            asking.start_soon(site.build)
            await site.builder.begun.wait()
            asking.cancel_scope.cancel()
        hearer = Hearer()
        async with anyio.create_task_group() as asking:
            asking.start_soon(site.build, site.order(hearer=hearer))
            await until(lambda: len(site.builder.orders) == 2)
            site.builder.lingers.set()
            await until(lambda: site.slots.borrowed_tokens == 1)
            site.builder.may_end.set()
        first, second = site.builder.orders
        assert first.log != second.log == hearer.log
        assert site.builder.contexts == [FILES | {second.dockerfile: FILES["Dockerfile"]}]


async def test_a_failure_is_told_to_all_who_asked_before_it_and_its_log_stays(tmp_path: Path):
    """Also to who comes after the build; who asks later gets a build, and a log, of its own."""
    async with site_in(tmp_path) as site:
        site.builder.may_end, site.builder.fault = anyio.Event(), failure("Step 1 exited with 7")
        site.builder.prints = "the whole log of the failure\n"
        hearers = [Hearer() for _ in range(20)]
        told: list[str] = []
        asked_at = unix_now()

        async def ask(hearer: Hearer) -> None:
            with pytest.raises(ItemError) as raised:
                await site.build(site.order(hearer=hearer, popped_at=asked_at))
            told.append(str(raised.value))

        async with anyio.create_task_group() as asking:
            for hearer in hearers:
                asking.start_soon(ask, hearer)
            await until(lambda: all("step 1/1" in hearer.said for hearer in hearers))
            site.builder.may_end.set()
        late = Hearer()
        await ask(late)
        assert told == ["Step 1 exited with 7"] * 21
        assert len(site.builder.orders) == 1
        site.builder.fault, site.builder.prints = None, "well\n"
        await site.build()
        assert len(site.builder.orders) == 2
        for hearer in (*hearers, late):
            assert hearer.log is not None
            assert hearer.log.read_text() == "the whole log of the failure\n"


async def test_a_fault_of_a_service_is_remembered_for_nobody(tmp_path: Path):
    async with site_in(tmp_path) as site:
        site.unready = Unavailable("no room")
        before = unix_now()
        with pytest.raises(Unavailable, match="no room"):
            await site.build(site.order(popped_at=before))
        assert site.builder.orders == []
        site.unready, site.builder.fault = None, Unavailable("away")
        with pytest.raises(Unavailable, match="away"):
            await site.build(site.order(popped_at=before))
        site.builder.fault = None
        await site.build(site.order(popped_at=before))
        assert site.slots.borrowed_tokens == 0


async def test_a_build_that_takes_too_long_says_where_it_was(tmp_path: Path):
    async with site_in(tmp_path, timeout_seconds=0.1) as site:
        site.builder.may_end = anyio.Event()
        with pytest.raises(ItemError, match=r"longer than 0.1 s \(`builder.timeout`\): step 1/1"):
            await site.build()
        assert site.slots.borrowed_tokens == 0


async def test_who_asks_before_builds_are_served_waits(tmp_path: Path):
    site = Site(tmp_path)
    async with anyio.create_task_group() as asking:
        asking.start_soon(site.build)
        await anyio.wait_all_tasks_blocked()
        async with site.serving():
            await until(lambda: site.store.digests)
            await anyio.wait_all_tasks_blocked()


async def test_a_build_that_was_cut_off_is_no_image_and_begins_anew(tmp_path: Path):
    site, hearer, images = Site(tmp_path), Hearer(), list[str]()
    site.builder.may_end = anyio.Event()

    async def ask() -> None:
        images.append((await site.build(site.order(hearer=hearer))).image)

    async with anyio.create_task_group() as asking:
        async with site.serving():
            asking.start_soon(ask)
            await site.builder.begun.wait()
        await anyio.wait_all_tasks_blocked()
        assert images == []
        site.builder.may_end.set()
        async with site.serving():
            await until(lambda: images)
    assert len(site.builder.orders) == 2
    assert hearer.log == site.builder.orders[1].log


async def test_what_a_killed_life_staged_is_removed_and_nothing_of_this_one(tmp_path: Path):
    left = tmp_path / "builds" / "staged" / "0000" / "1"
    left.mkdir(parents=True)
    (left / "Dockerfile").write_text("FROM a\n")
    async with site_in(tmp_path) as site:
        site.builder.may_end = anyio.Event()
        async with anyio.create_task_group() as asking:
            asking.start_soon(site.build)
            await site.builder.begun.wait()
            await until(lambda: not left.parent.exists())
            site.builder.may_end.set()
        assert site.builder.contexts[0]["train.py"] == FILES["train.py"]


async def test_code_that_cannot_be_staged_is_its_items_end_and_not_the_agents(tmp_path: Path):
    async with site_in(tmp_path) as site:
        (site.folder).mkdir()
        (site.folder / "staged").write_text("a file where a folder must be")
        with pytest.raises(ItemError, match="cannot be built on the agent's machine") as raised:
            await site.build()
        assert raised.value.reason is Reason.BUILD_FAILED


async def test_the_code_of_a_run_that_is_not_built_stays_until_the_run_is_over(tmp_path: Path):
    async with site_in(tmp_path, builds=False, base_image="python:3.11") as site:
        orders = [site.order(run=run, dockerfile=None) for run in ("one", "two", "three")]
        for order in (*orders, orders[0]):
            assert (await site.build(order)).code == site.codes.folder / "A"
        assert site.codes.uses == 3
        await site.maker.discard(orders[0].item)
        await site.maker.discard(orders[0].item)
        assert site.codes.uses == 2
        await site.maker.prune({orders[1].item.run_id})
        assert site.codes.uses == 1
    assert site.codes.uses == 0


async def test_a_job_that_cannot_run_unbuilt_holds_nothing(tmp_path: Path):
    async with site_in(tmp_path, builds=False, base_image="no image!") as site:
        with pytest.raises(ItemError, match="no image reference"):
            await site.build(site.order(dockerfile=None))
        assert site.codes.uses == 0
