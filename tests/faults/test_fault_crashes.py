"""The agent dies, stops or is doubled: rows R01 to R09, R21 and R26 of docs/faults.md."""

import signal
import subprocess

import pytest
from fault_harness import Site, alive, wait_until

POP, ACK = "popFromRunQueue", "ackRunQueueItem"


def test_killed_between_pop_and_ack_the_item_comes_back_with_its_lease(site: Site):
    queue = site.queue("local-process")
    item = site.process(queue, "one", code=3)
    with site.agent(queue) as first, site.api.hold(ACK) as held:
        held.wait()
        first.kill()
    site.lapse()
    with site.agent(queue) as second:
        site.end_of(item)
        second.settled()
    assert site.begun() == {"one": 1}
    assert site.secrets_in_files() == []


def test_a_pop_whose_answer_is_lost_loses_no_item(site: Site):
    queue = site.queue("local-process")
    with site.agent(queue) as life:
        life.admin  # noqa: B018 - it polls
        with site.api.lose(POP) as lost:
            item = site.process(queue, "one", code=3)
            site.wait_for(item, "LEASED")
            lost.wait()
        site.lapse()
        site.end_of(item)
        life.settled()
    assert site.begun() == {"one": 1}


@pytest.mark.docker
def test_killed_between_ack_and_create_it_is_created_once(site: Site):
    queue = site.queue("local-container")
    item = site.container(queue, "exit 3")
    with site.events() as events:
        with site.agent(queue) as first, site.engine.hold("/containers/create") as held:
            held.wait()
            assert site.item(item)["state"] == "CLAIMED"
            first.kill()
        assert site.containers() == {}
        with site.agent(queue) as second:
            ended = site.end_of(item)
            second.settled()
    assert "exited with code 3" in ended["message"]
    assert [event.action for event in events.seen].count("create") == 1
    assert site.containers() == {}


@pytest.mark.docker
@pytest.mark.parametrize("step", ["/containers/create", "/start"])
def test_killed_before_the_engine_answers_what_was_made_is_adopted(site: Site, step: str):
    queue = site.queue("local-container")
    item = site.container(queue, "sleep 2; exit 3")
    with site.events() as events:
        with site.agent(queue) as first, site.engine.hold(step, answered=True) as held:
            held.wait()
            first.kill()
        [container] = site.containers().values()
        with site.agent(queue) as second:
            ended = site.end_of(item)
            second.settled()
    assert "exited with code 3" in ended["message"]
    actions = [event.action for event in events.seen]
    assert (actions.count("create"), actions.count("start")) == (1, 1), container
    assert site.containers() == {}


def test_killed_while_an_environment_is_made_it_is_made_anew_once(site: Site):
    queue = site.queue("local-process")
    item = site.slow(queue)
    with site.agent(queue) as first:
        wait_until(site.builds, within_seconds=60)
        first.kill()
    site.gate.touch()
    with site.agent(queue) as second:
        ended = site.end_of(item)
        second.settled()
        assert second.program.output.count("environment is ready") == 1
    assert "exited with code 3" in ended["message"]
    assert "slow words" in ended["message"]
    assert site.builds() == 2
    wait_until(lambda: not alive(words=[str(site.state_dir), "pip"]))


def test_cancelled_while_its_environment_is_made_it_ends_with_its_installer(site: Site):
    queue = site.queue("local-process")
    item = site.slow(queue)
    with site.agent(queue) as life:
        wait_until(site.builds, within_seconds=60)
        site.fleet.control_plane.ask(CANCEL, item=item)
        assert site.end_of(item)["state"] == "STOPPED"
        life.settled()
        assert alive(words=[str(site.state_dir), "pip"]) == []


CANCEL = """mutation Cancel($item: ID!) {
  cancelRunQueueItem(input: { runQueueItemId: $item }) { success }
}"""


@pytest.mark.docker
def test_killed_with_many_runs_all_are_adopted_with_few_calls(site: Site):
    """A thousand in the world, forty here; the benchmark adopts six hundred."""
    processes, containers = site.queue("local-process", "p"), site.queue("local-container", "c")
    go = site.folder / "go"
    items = [site.process(processes, f"p{n}", until=go, code=3) for n in range(20)]
    ended = [site.container(containers) for _ in range(5)]
    boxes = [site.container(containers) for _ in range(15)]
    names = [f"p{n}" for n in range(20)]
    with site.agent(processes, containers) as first:
        site.wait_until_begun(*names, within_seconds=60)
        site.wait_until_running(*ended, *boxes)
        first.admin.wait_for_status("launched", 40)
        first.kill()
    there = site.containers()
    run_docker("kill", *(there[item] for item in ended))
    before = len(site.engine.operations)
    with site.agent(processes, containers) as second:
        second.admin.wait_for_status("adopted", 40, within_seconds=30)
        for item in ended:
            assert "SIGKILL" in site.end_of(item)["message"]
        assert {site.item(item)["state"] for item in boxes} == {"CLAIMED"}
        calls = len(site.engine.operations) - before
        assert calls < 40 * 4, site.engine.operations[before:]
        go.touch()
        run_docker("kill", *(there[item] for item in boxes))
        assert all("code 3" in site.end_of(item)["message"] for item in items)
        second.settled()
    assert site.begun() == dict.fromkeys(names, 1)
    assert site.containers() == {}


@pytest.mark.docker
def test_a_stop_waits_for_a_create_in_flight_and_the_run_is_left_to_the_next_life(site: Site):
    queue = site.queue("local-container")
    item = site.container(queue)
    with site.agent(queue, section={"grace": 5}) as first:
        with site.engine.hold("/containers/create") as held:
            held.wait()
            popped = site.api.operations.count(POP)
            first.signal(signal.SIGTERM)
            first.program.wait_for('"event": "stopping"')
            held.release()
        first.program.wait_for("run started")
        assert first.program.wait(within_seconds=20) == 0
        assert site.api.operations.count(POP) - popped <= 1
    site.wait_until_running(item)
    with site.agent(queue) as second:
        second.admin.wait_for_status("adopted", 1)
        run_docker("kill", site.containers()[item])
        site.end_of(item)
        second.settled()


def test_an_agent_that_slept_through_its_lease_is_fenced_off(site: Site):
    queue = site.queue("local-process")
    item = site.process(queue, "one", code=3)
    folder = site.folder / "other"
    folder.mkdir()
    other = Site(site.fleet, folder=folder, api=site.api, engine=None, ask=site._ask)
    with site.agent(queue) as stale, site.api.hold(ACK) as held:
        held.wait()
        stale.signal(signal.SIGSTOP)
        held.spare_others()
        site.lapse(stopped=1)
        with other.agent(queue) as fresh:
            site.wait_until_begun("one")
            site.end_of(item)
            fresh.settled()
            stale.signal(signal.SIGCONT)
            held.release()
            stale.program.wait_for("let_go")
            stale.settled()
    assert site.begun() == {"one": 1}


def run_docker(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, capture_output=True, timeout=60)
