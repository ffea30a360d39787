"""The engine is away, stuck or full, and people meddle: rows R25, R29, R30 of docs/faults.md.

The engine that other programs use is not restarted here: a proxy cuts every connection to it.
"""

import pytest
from fault_harness import Site, run, wait_until

pytestmark = pytest.mark.docker


def test_an_engine_that_goes_away_costs_processes_nothing_and_its_runs_are_seen_again(site: Site):
    boxes, processes = site.queue("local-container", "c"), site.queue("local-process", "p")
    box = site.container(boxes)
    with site.agent(boxes, processes) as life:
        site.wait_until_running(box)
        life.admin.wait_for_status("launched", 1)
        with site.engine.down():
            run("docker", "kill", site.containers()[box])
            site.end_of(site.process(processes, "one", code=3))
            waits = site.container(boxes, "exit 5")
            site.wait_for(waits, "CLAIMED")
            assert site.item(box)["state"] == "CLAIMED", "unknown is not failed"
        assert "SIGKILL" in site.end_of(box)["message"]
        assert "code 5" in site.end_of(waits)["message"]
        life.settled()
    assert site.containers() == {}


def test_a_pull_that_hangs_holds_up_no_other_item_and_can_be_cancelled(site: Site):
    queue = site.queue("local-container")
    with site.agent(queue) as life, site.engine.hold("/images/create") as held:
        stuck = site.container(queue, image="localhost:9/no/such:latest")
        held.wait()
        assert "code 5" in site.end_of(site.container(queue, "exit 5"))["message"]
        site.fleet.control_plane.ask(CANCEL, item=stuck)
        assert site.end_of(stuck)["state"] == "STOPPED"
        life.settled()
    assert site.containers() == {}


def test_an_engine_without_room_fails_the_item_with_the_engines_words(site: Site):
    queue = site.queue("local-container")
    full = '{"message": "write /var/lib/docker/tmp: no space left on device"}'
    with site.agent(queue, section={"patience": 1}) as life:
        with site.engine.answer("/containers/create", 500, body=full):
            item = site.container(queue, "exit 5")
            ended = site.end_of(item)
        assert ended["state"] == "FAILED"
        assert "no space left on device" in ended["message"]
        assert "code 5" in site.end_of(site.container(queue, "exit 5"))["message"]
        life.settled()


def test_a_container_that_somebody_removes_has_vanished_and_its_slot_is_free(site: Site):
    queue = site.queue("local-container")
    item = site.container(queue)
    with site.agent(queue) as life:
        site.wait_until_running(item)
        life.admin.wait_for_status("launched", 1)
        run("docker", "rm", "-f", site.containers()[item])
        ended = site.end_of(item)
        life.settled()
        assert life.admin.status()["ended"].keys() <= {"vanished", "killed"}
    assert ended["state"] == "FAILED"


def test_a_user_who_stops_runs_ends_what_waits_and_what_runs(site: Site):
    queue = site.queue("local-container")
    items = [site.container(queue) for _ in range(3)]
    with site.agent({"name": queue, "max_jobs": 2}) as life:
        site.wait_until_running(*items[:2])
        for item in reversed(items):
            site.fleet.control_plane.ask(CANCEL, item=item)
        assert [site.end_of(item)["state"] for item in items] == ["STOPPED"] * 3
        life.settled()
    wait_until(lambda: not site.containers())


CANCEL = """mutation Cancel($item: ID!) {
  cancelRunQueueItem(input: { runQueueItemId: $item }) { success }
}"""
