"""Registries that refuse, are slow or hang while images are looked for and pushed (row R34)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_harness import Life, Site, wait_until
from image_faults import CODE_3, direct, is_there, launch, leftovers, remove_images, tags_of
from registry_gate import HANG, USERNAME, RegistryGate, registry_gate

from registry_servers import Registries

pytestmark = pytest.mark.docker

MANIFESTS = "/manifests/la-"
PASSWORD = "first-password"


@pytest.fixture
def gate(site: Site, registries: Registries) -> Iterator[RegistryGate]:
    with registry_gate(registries.open, PASSWORD) as gate:
        yield gate
        remove_images(site, _repository(site, gate))


@pytest.fixture
def queue(site: Site) -> str:
    return site.queue("local-container")


@contextmanager
def pushing_agent(site: Site, gate: RegistryGate, queue: str, **builder: Any) -> Iterator[Life]:
    """An agent whose images go to the gate; it waits two seconds for what is away."""
    login = {"host": gate.host, "username": USERNAME, "password_file": str(_password_file(site))}
    section = {"registries": [login], "patience": 2}
    builder |= {"destination": _repository(site, gate)}
    with site.agent(queue, section=section, env=direct(site), builder=builder) as life:
        yield life
        life.settled()
    assert leftovers(site) == []


def _repository(site: Site, gate: RegistryGate) -> str:
    """Of this test alone: what is pushed once is found again."""
    return f"{gate.host}/faults/{site.identity}"


def _password_file(site: Site) -> Path:
    path = site.folder / "password"
    if not path.exists():
        path.write_text(PASSWORD)
    return path


def others_go_on(site: Site, queue: str) -> None:
    assert "code 5" in site.end_of(site.container(queue, "exit 5"))["message"]


def tags_pushed(gate: RegistryGate) -> list[str]:
    """Each time that a tag was put and taken, in order."""
    puts = [line.split() for line in gate.seen if MANIFESTS in line and line.startswith("PUT")]
    return [path.rpartition("/")[2] for _, path, status in puts if status == "201"]


def test_what_a_registry_does_not_take_is_not_launched_and_is_pushed_when_it_does(
    site: Site, gate: RegistryGate, queue: str
):
    gate.refuse("PUT", MANIFESTS, 401)
    items = [launch(site, queue, "plain") for _ in range(3)]
    with site.events() as events, pushing_agent(site, gate, queue):
        for item in items:
            ended = site.end_of(item)
            assert "does not let this agent push" in ended["message"]
            assert gate.host in ended["message"]
        assert {event.action for event in events.seen} == set()
        others_go_on(site, queue)
        [tag] = set(tags_of(site))
        assert is_there(
            tag, _repository(site, gate)
        )  # on the engine alone, where nobody else finds it
        gate.heal()
        assert CODE_3 in site.end_of(launch(site, queue, "plain"))["message"]
    assert tags_pushed(gate) == [tag]


def test_a_registry_that_is_sick_for_a_while_costs_a_while(
    site: Site, gate: RegistryGate, queue: str
):
    quiet = gate.refuse("HEAD", MANIFESTS, 429, times=1, retry_after=2)
    sick = gate.refuse("PUT", MANIFESTS, 500, times=2)
    item = launch(site, queue, "plain")
    with pushing_agent(site, gate, queue):
        assert CODE_3 in site.end_of(item)["message"]
    assert len(sick.hits) == 2
    assert len(tags_of(site)) == 1
    assert tags_pushed(gate) == tags_of(site)
    assert sick.hits[0] - quiet.hits[0] > 1.6


def test_a_registry_that_stays_sick_fails_the_item_and_nothing_is_launched(
    site: Site, gate: RegistryGate, queue: str
):
    gate.refuse("PUT", MANIFESTS, 500)
    item = launch(site, queue, "plain")
    with site.events() as events, pushing_agent(site, gate, queue):
        others_go_on(site, queue)
        ended = site.end_of(item)
        assert f"The registry {gate.host} did not take" in ended["message"]
    images = {event.facts["image"] for event in events.seen}
    assert not any("faults" in image for image in images)


def test_a_push_that_hangs_ends_with_the_builds_time_and_costs_others_nothing(
    site: Site, gate: RegistryGate, queue: str
):
    hanging = gate.refuse("PUT", MANIFESTS, HANG)
    item = launch(site, queue, "plain")
    with pushing_agent(site, gate, queue, timeout=8):
        assert hanging.hit.wait(30)
        others_go_on(site, queue)
        ended = site.end_of(item)
        assert "longer than 8 s (`builder.timeout`): pushing" in ended["message"]


def test_a_look_that_hangs_costs_others_nothing(site: Site, gate: RegistryGate, queue: str):
    hanging = gate.refuse("HEAD", MANIFESTS, HANG)
    item = launch(site, queue, "plain")
    with pushing_agent(site, gate, queue):
        assert hanging.hit.wait(30)
        others_go_on(site, queue)
        gate.heal()
        assert CODE_3 in site.end_of(item)["message"]


def test_a_password_that_changes_during_a_push_is_read_anew(
    site: Site, gate: RegistryGate, queue: str
):
    def rotate(request: str) -> None:
        # At its end: the engine itself tries what it is denied earlier again, for a minute.
        if request.startswith("PUT") and MANIFESTS in request and gate.password == PASSWORD:
            gate.password = "second-password"
            _password_file(site).write_text(gate.password)

    gate.before = rotate
    item = launch(site, queue, "plain")
    with pushing_agent(site, gate, queue):
        assert CODE_3 in site.end_of(item)["message"]
        wait_until(lambda: tags_pushed(gate))
    assert any(line.endswith(" 401") and line.startswith("PUT") for line in gate.seen)
    assert tags_pushed(gate) == tags_of(site)
