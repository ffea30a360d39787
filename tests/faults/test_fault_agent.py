"""What befalls the agent itself: rows R17, R32, R35, R36, R38, R39 of docs/faults.md."""

import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fault_harness import Life, Site, run, small_disk, wait_until

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
LAG = "launch_agent_loop_lag_seconds"
MAX_LAG_SECONDS = 0.25
DECADE = timedelta(days=3650)


@pytest.mark.skipif(FAKETIME is None, reason="no libfaketime: apt-get install libfaketime")
def test_no_jump_of_the_wall_clock_ends_a_run_or_stops_the_agent(site: Site):
    """Ten years ahead, an hour back, an hour ahead; libfaketime spares the monotonic clock."""
    queue = site.queue("local-process")
    go, clock = site.folder / "go", site.folder / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    limits = {"run_timeout": 300, "start_timeout": 300}
    item = site.process(queue, "one", until=go, code=3)
    with site.agent(queue, section=limits, env=env) as life:
        site.wait_until_begun("one")
        for number, jump in enumerate([f"+{DECADE.days}d", "-1h", "+1h"]):
            clock.write_text(jump)
            later = site.process(queue, f"after{number}", code=3)
            assert "code 3" in site.end_of(later)["message"]
            if number == 0:  # the agent's own clock did jump
                year = (datetime.now(UTC) + DECADE).year
                life.program.wait_for(f'"timestamp": "{year}')
            assert site.item(item)["state"] == "CLAIMED"
            assert life.admin.get("/readyz")[0] == 200
        go.touch()
        assert "code 3" in site.end_of(item)["message"]
        life.settled()


def test_a_suspended_agent_goes_on_where_it_was(site: Site):
    queue = site.queue("local-process")
    go = site.folder / "go"
    item = site.process(queue, "one", until=go, code=3)
    with site.agent(queue, section={"heartbeat": 0.2}) as life:
        site.wait_until_begun("one")
        life.signal(signal.SIGSTOP)
        begin = time.monotonic()
        wait_until(lambda: time.monotonic() - begin > 3)
        life.signal(signal.SIGCONT)
        assert "code 3" in site.end_of(site.process(queue, "two", code=3))["message"]
        assert site.item(item)["state"] == "CLAIMED"
        go.touch()
        assert "code 3" in site.end_of(item)["message"]
        life.settled()


def test_a_limit_that_sinks_and_rises_ends_nothing_and_is_never_exceeded(site: Site):
    """100 -> 10 -> 100 in the world, 10 -> 2 -> 10 here; the limit is read again at SIGHUP."""
    queue = site.queue("local-process")
    waves = [site.folder / f"go{number}" for number in range(3)]
    items = [site.process(queue, f"p{n}", until=waves[n // 10], code=3) for n in range(30)]
    with site.agent(queue, max_jobs=10) as life:
        wait_until(lambda: _open(life) == 10)
        site.configure(queue, max_jobs=2)
        life.signal(signal.SIGHUP)
        life.program.wait_for("configuration reloaded")
        assert _open(life) == 10
        waves[0].touch()
        wait_until(lambda: len(site.begun()) == 12, within_seconds=60)
        assert _open(life) <= 2
        site.configure(queue, max_jobs=10)
        life.signal(signal.SIGHUP)
        wait_until(lambda: len(site.begun()) == 20)
        assert _open(life) == 10
        for wave in waves:
            wave.touch()
        assert all("code 3" in site.end_of(item)["message"] for item in items)
        life.settled()
    assert set(site.begun().values()) == {1}


def _open(life: Life) -> int:
    return len(life.admin.status()["items"])


@pytest.fixture
def disk(site: Site) -> Iterator[Path]:
    identity = site.state_dir / "identity"
    text = identity.read_text()
    with small_disk(site.state_dir, 8) as folder:
        (folder / "identity").write_text(text)
        yield folder
        site.clean_up()


@pytest.mark.docker
def test_with_its_disk_full_the_agent_ends_in_order_and_its_runs_go_on(site: Site, disk: Path):
    queue = site.queue("local-container")
    item = site.container(queue)
    with site.agent(queue) as first, ExitStack() as broken:
        site.wait_until_running(item)
        first.admin.wait_for_status("launched", 1)
        broken.enter_context(filled(disk))
        later = site.container(queue, "exit 5")
        assert first.program.wait(within_seconds=30) == 3
        assert "disk" in first.program.output
        assert set(site.containers()) == {item}
        broken.close()
        site.lapse()
        with site.agent(queue) as second:
            assert "code 5" in site.end_of(later)["message"]
            run("docker", "kill", site.containers()[item])
            assert "SIGKILL" in site.end_of(item)["message"]
            second.settled()
    assert site.containers() == {}


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        for size in (2**16, 2**9, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
    yield
    ballast.unlink()


@pytest.mark.docker
def test_a_torn_journal_is_named_and_without_it_the_engine_tells_what_runs(site: Site):
    queue = site.queue("local-container")
    item = site.container(queue)
    with site.agent(queue) as first:
        site.wait_until_running(item)
        first.admin.wait_for_status("launched", 1)
        first.kill()
    journal = site.state_dir / "journal.sqlite"
    for path in site.state_dir.glob("journal.sqlite*"):
        path.write_bytes(path.read_bytes()[:100] + b"\xff" * 4096)
    with site.agent(queue) as second:
        assert second.program.wait(within_seconds=30) == 3
        assert str(journal) in second.program.output
    for path in site.state_dir.glob("journal.sqlite*"):
        path.unlink()
    with site.agent(queue) as third:
        third.admin  # noqa: B018 - it polls
        run("docker", "kill", site.containers()[item])
        assert "SIGKILL" in site.end_of(item)["message"]
        third.settled()
    assert site.containers() == {}


@pytest.mark.docker
def test_a_flood_of_output_leaves_the_agents_memory_alone_and_keeps_the_tail(site: Site):
    """1 GB in the world; 300 MB of a process and 30 MB of a container here."""
    boxes, processes = site.queue("local-container", "c"), site.queue("local-process", "p")
    with site.agent(boxes, processes) as life:
        site.end_of(site.process(processes, "first", code=3))
        before = life.rss_mb()
        box = site.container(boxes, "yes 0123456789 | head -c 30000000; echo last words; exit 3")
        flood = site.push(
            processes,
            job=site._ask("play_job"),
            overrides={"entry_point": ["sh", "-c", f"{FLOOD}; echo last words; exit 3"]},
        )
        for item in (box, flood):
            ended = site.end_of(item)
            assert "code 3" in ended["message"]
            assert "last words" in ended["message"]
        life.settled()
        assert life.rss_mb() < max(before * 1.1, before + 16)


FLOOD = "yes 0123456789 | head -c 300000000"
BLOCKING = """
import time
from launch_folder import FolderRunner

class Blocking(FolderRunner):
    async def check(self):
        time.sleep(8)
"""
EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin-runner" / "launch_folder.py"


def test_a_plug_in_that_blocks_the_loop_is_named_and_the_probe_fails_meanwhile(site: Site):
    facts = site.folder / "packages" / "blocking-1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: blocking\nVersion: 1\n")
    points = "[launch_async.runners]\nsagemaker = blocking:Blocking\n"
    (facts / "entry_points.txt").write_text(points)
    (facts.parent / "blocking.py").write_text(BLOCKING)
    shutil.copy(EXAMPLE, facts.parent)
    queue = site.queue("sagemaker")
    with site.agent(queue, env={"PYTHONPATH": str(facts.parent)}) as life:
        url = f"{life.admin.admin}/livez"
        item = site.push(
            queue,
            docker={"docker_image": str(site.folder)},
            overrides={"args": ["sh", "-c", "echo here; exit 3"]},
        )
        said = life.program.wait_for('.*"event loop is blocked".*')[0]
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(url, timeout=0.5)  # noqa: S310 - our own
        assert f'"task": "item {item}"' in said
        assert "blocking.py" in said
        assert "code 3" in site.end_of(item)["message"]
        life.program.wait_for("event loop runs again")
        wait_until(lambda: life.admin.get("/livez")[0] == 200)
        assert life.metric("launch_agent_loop_lag_worst_seconds") > 5
        life.settled()


def test_a_storm_of_scrapes_and_readers_that_stop_reading_leave_the_loop_free(site: Site):
    """Fifty a second for three seconds, beside 20 connections that ask and never read."""
    queue = site.queue("local-process")
    with site.agent(queue) as life, ExitStack() as slow:
        host, _, port = life.admin.admin.removeprefix("http://").partition(":")
        for _ in range(20):
            reader = slow.enter_context(socket.create_connection((host, int(port))))
            reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
        seconds: list[float] = []

        def scrape() -> None:
            for _ in range(30):
                begin = time.monotonic()
                assert life.admin.get("/metrics")[0] == 200
                seconds.append(time.monotonic() - begin)
                time.sleep(0.1)

        threads = [threading.Thread(target=scrape) for _ in range(5)]
        for thread in threads:
            thread.start()
        item = site.process(queue, "one", code=3)
        assert "code 3" in site.end_of(item)["message"]
        for thread in threads:
            thread.join(60)
        assert len(seconds) == 150
        assert life.metric(LAG) < MAX_LAG_SECONDS
        life.settled()
