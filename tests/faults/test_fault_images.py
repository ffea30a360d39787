"""Builds of images under fire: many who want one, who leave, who fail, and agents that die."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_harness import Site, small_disk, wait_until
from image_faults import (
    CODE_3,
    NAPS,
    SHORT_NAP,
    bundle_file,
    cancel,
    command_lines,
    direct,
    files_of,
    is_there,
    launch,
    leftovers,
    make_job,
    remove_images,
    sleeping,
    tagged,
    tags_of,
    times,
)

from build_tools import find_buildx

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def swept(site: Site) -> Iterator[None]:
    yield
    remove_images(site)


@pytest.fixture
def token(site: Site) -> Path:
    path = site.folder / "token"
    path.write_text("t" * 40)
    return path


def test_a_hundred_items_of_one_content_are_built_once_and_all_run(site: Site, tiny_image: str):
    """Of two jobs, and of a later version of one of them."""
    queue = site.queue("local-container")
    items = [launch(site, queue, "plain") for _ in range(80)]
    items += [launch(site, queue, "plain", "twin_job") for _ in range(20)]
    with (
        site.events() as events,
        tagged() as made,
        site.agent(queue, section={"waiting": 100}) as life,
    ):
        for item in items:
            assert CODE_3 in site.end_of(item, within_seconds=180)["message"]
        life.settled()
        named = ["--entry-point", "sh ./main.sh"]  # else the service makes no new version
        version = make_job(site.fleet, "images-twin", files_of(tiny_image), *named)
        assert CODE_3 in site.end_of(launch(site, queue, "plain", version))["message"]
        wait_until(lambda: sum(one.action == "start" for one in events.seen) == 101)
    [tag] = tags_of(site)
    assert times(made, tag) == site.engine.operations.count("POST /build") == 1
    assert leftovers(site) == []


def test_a_build_ends_with_the_last_who_waits_for_it_and_not_before(site: Site, token: Path):
    queue = site.queue("local-container")
    items = [launch(site, queue, "a") for _ in range(3)]
    section = {"admin_token_file": str(token), "builds": 1}
    with site.agent(queue, section=section, env=direct(site)) as life:
        wait_until(lambda: sleeping(NAPS["a"]))
        for item in items[:2]:
            cancel(life, item, token)
            assert "cancelled by the agent's operator" in site.end_of(item)["message"]
        assert sleeping(NAPS["a"])
        cancel(life, items[2], token)
        wait_until(lambda: not sleeping(NAPS["a"]), within_seconds=1)
        assert "cancelled" in site.end_of(items[2])["message"]
        life.settled()
        assert leftovers(site) == []
        assert CODE_3 in site.end_of(launch(site, queue, "plain"))["message"]
    assert [is_there(tag) for tag in tags_of(site)] == [False, True]


def test_a_failed_build_is_told_to_all_who_waited_with_its_log_and_later_ones_try_anew(site: Site):
    queue = site.queue("local-container")
    items = [launch(site, queue, "fails") for _ in range(20)]
    with tagged() as made, site.agent(queue, section={"waiting": 20}) as life:
        wait_until(lambda: life.admin.get("/status")[1].count("sleep") == 20)
        for item in items:
            ended = site.end_of(item)
            assert "Step 3/3 of the Dockerfile exited with 7: RUN sleep" in ended["message"]
            assert "last words" in ended["message"]
            assert ended["stage"] == "build"
            printed = bundle_file(site, life, item, "build.log").split()
            assert {str(number) for number in range(1, 1000)} < set(printed)
        life.settled()
        assert site.api.operations.count("failRunQueueItem") == 20
        assert site.engine.operations.count("POST /build") == 1
        later = site.end_of(launch(site, queue, "fails"))
        assert "exited with 7" in later["message"]
        assert site.engine.operations.count("POST /build") == 2
        life.settled()
    assert not any(times(made, tag) for tag in tags_of(site))
    assert leftovers(site) == []


@pytest.mark.parametrize("buildx", ["never", "always"])
def test_killed_during_a_build_the_next_life_builds_and_nothing_is_left(
    site: Site, buildx: str, miss
):
    queue = site.queue("local-container")
    env, builder = direct(site), {"buildx": buildx, "build-args": {"SALT": buildx}}
    if buildx == "always":
        folder = find_buildx() or miss("no docker buildx here: get it with scripts/buildx")
        env["DOCKER_CONFIG"] = str(folder)
    item = launch(site, queue, "short")
    with tagged() as made:
        with site.agent(queue, env=env, builder=builder) as first:
            wait_until(lambda: sleeping(SHORT_NAP))
            assert len(leftovers(site)) == (2 if buildx == "always" else 1)
            first.kill()
        [tag] = tags_of(site)
        assert not is_there(tag)
        with site.agent(queue, env=env, builder=builder) as second:
            assert CODE_3 in site.end_of(item)["message"]
            second.settled()
        # Docker's own client may live to the end of what it began, and its image is found then.
        wait_until(lambda: not any(tag in line for line in command_lines()))
    if buildx == "never":  # the engine tells nothing of what buildx names
        assert times(made, tag) == 1
        assert tags_of(site) == [tag, tag]
    assert set(tags_of(site)) == {tag}
    assert is_there(tag)
    assert leftovers(site) == []


def test_a_build_without_end_is_ended_and_costs_others_nothing(site: Site):
    queue = site.queue("local-container")
    endless = launch(site, queue, "b")
    with site.agent(queue, env=direct(site), builder={"timeout": 3}) as life:
        wait_until(lambda: sleeping(NAPS["b"]))
        assert CODE_3 in site.end_of(launch(site, queue, "plain"))["message"]
        ended = site.end_of(endless)
        assert "took longer than 3 s (`builder.timeout`): step 3/3: RUN sleep" in ended["message"]
        wait_until(lambda: not sleeping(NAPS["b"]), within_seconds=1)
        life.settled()
    assert leftovers(site) == []


def test_without_room_for_a_context_its_item_fails_and_others_go_on(site: Site):
    queue = site.queue("local-container")
    (site.state_dir / "builds").mkdir()
    with small_disk(site.state_dir / "builds", 2), site.agent(queue) as life:
        large = site.end_of(launch(site, queue, "large"))
        assert "The agent has no room to build the image" in large["message"]
        assert large["stage"] == "build"
        assert CODE_3 in site.end_of(launch(site, queue, "plain"))["message"]
        life.settled()
        assert leftovers(site) == []
        assert life.program.process.poll() is None


def test_a_stop_of_the_agent_ends_its_builds_and_the_next_life_goes_on(site: Site):
    queue = site.queue("local-container")
    item = launch(site, queue, "short")
    builder = {"build-args": {"SALT": "stop"}}
    with site.agent(queue, env=direct(site), builder=builder) as first:
        wait_until(lambda: sleeping(SHORT_NAP))
        first.signal(signal.SIGTERM)
        first.program.wait_for("stopping")
        first.signal(signal.SIGTERM)
        assert first.program.wait(within_seconds=5) == 0
        assert not sleeping(SHORT_NAP)
        assert leftovers(site) == []
    with site.agent(queue, env=direct(site), builder=builder) as second:
        assert CODE_3 in site.end_of(item)["message"]
        second.settled()
