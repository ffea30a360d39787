"""What our way from code to an image costs over a plain build of the same, in one run.

    .venv/bin/python benchmarks/image_builds.py [--rounds 5] [--hits 10] [--megabytes 1000]

over     the same context and Dockerfile, one after the other in turns: `docker buildx build --load`
         (without buildx: `docker build`), and our flow with each of its builders: recipe, look at
         all files, tag, look for the image, stage, build. Cold: the code is new; the base and what
         Python compiles are not in the engine's cache. Warm: built before, only the name is gone.
         The code is on this machine already; fetching it is measured by nobody here.
hit      the flow alone for an image that is there; and from an agent's claim of an item to the
         container's `create` by the engine's clock, for a second launch, with server and queue.
large    one context with a file of random bytes: seconds and the most memory of the program that
         sends it, ours (over what it has before, with its buildx if it has one) beside the plain
         client.

Pairs, medians, worst and best are printed as they come. Removes the images and, of its large
builds, the cache.
"""

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import anyio
import msgspec
import structlog

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "acceptance"))

from agent_harness import ENDED, Fleet
from engine_events import EngineEvents
from programs import ControlPlane, Shell, program_environment

from build_tools import find_buildx
from launch_async.compose.images import image_maker
from launch_async.config.images import BuilderSection
from launch_async.domain.ids import ItemId, QueueRef, RunId
from launch_async.domain.image import ImageRef
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, Job
from launch_async.domain.spec import RunSpec
from launch_async.images.maker import ImageMaker
from launch_async.kit.keep import Keep
from launch_async.ports.build import BuildOrder
from launch_async.ports.images import RegistryLogin
from launch_async.ports.jobs import Code
from launch_async.ports.runner import ImageWork
from launch_async.wire.docker import DockerConnection

BASE = "python:3.11-slim"
RECIPE = f"FROM {BASE}\nCOPY . /code\nWORKDIR /code\nRUN python -m compileall -q .\n"
LARGE = f"FROM {BASE}\nCOPY . /code\n"
CONFIG = """
queues: [containers]
max_jobs: -1
agent: {{state_dir: {state_dir}, admin: "127.0.0.1:0", poll: 0.2, poll_max: 0.2, heartbeat: 2}}
"""
MANY_BYTES = 100_000_000


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hits", type=int, default=10)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--worker", nargs=2, metavar=("CODE", "BUILDX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if arguments.worker:
        code, buildx = arguments.worker
        return anyio.run(work, Path(code), buildx)
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    folder_of_buildx = find_buildx()
    if folder_of_buildx is not None:
        os.environ["DOCKER_CONFIG"] = str(folder_of_buildx)
    ways = ["never", "always"] if folder_of_buildx else ["never"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for buildx in ways:
            anyio.run(compare, folder / buildx, buildx, arguments.rounds)
        measure_hits(folder / "agent", arguments.hits)
        if arguments.megabytes:
            measure_large(folder, ways, arguments.megabytes)
    print(f"load after: {os.getloadavg()[0]:.1f}")
    return 0


async def compare(folder: Path, buildx: str, rounds: int) -> None:
    """Plain and ours in turns, each first in every second round."""
    seconds: dict[str, list[float]] = {}
    async with maker_in(folder / "state", buildx) as maker:
        _, image = await timed("ours", maker.build, write_code(folder / "first"))
        docker("rmi", image)  # it was for what is found out once
        for number in range(rounds):
            pair: list[tuple[str, Callable[[Any], Any]]] = [
                ("plain", plain),
                ("ours", maker.build),
            ]
            for name, build in pair if number % 2 else pair[::-1]:
                code = write_code(folder / f"{name}{number}")
                for heat in ("cold", "warm"):
                    took, image = await timed(name, build, code)
                    seconds.setdefault(f"{heat} {name}", []).append(took)
                    docker("rmi", image)
        code = write_code(folder / "hit")
        _, image = await timed("ours", maker.build, code)
        hits = [(await timed("ours", maker.build, code))[0] for _ in range(30)]
        docker("rmi", image)
    named = {"never": "the engine's API", "always": "buildx"}[buildx]
    print(f"\nours by {named}, beside `{' '.join(plain_command())}`, {rounds} pairs, seconds")
    for heat in ("cold", "warm"):
        theirs, ours = seconds[f"{heat} plain"], seconds[f"{heat} ours"]
        over = [mine - other for mine, other in zip(ours, theirs, strict=True)]
        print(f"  {heat}: plain {shown(theirs)}   ours {shown(ours)}   over {shown(over)}")
    print(f"  hit, the flow alone: {shown([1000 * one for one in hits])} ms")


async def timed(name: str, build: Callable[[Any], Any], code: Path) -> tuple[float, str]:
    began = time.perf_counter()
    if name == "plain":
        image = await anyio.to_thread.run_sync(build, code)
    else:
        work = await build(order_of(code))
        assert isinstance(work, ImageWork)
        image = work.image
    return time.perf_counter() - began, image


def plain(code: Path) -> str:
    image = f"launch-async-bench/{code.name}:{code.parent.name}"
    command = [*plain_command(), "-f", str(code / "Dockerfile"), "-t", image, str(code)]
    subprocess.run(command, check=True, capture_output=True)
    return image


def plain_command() -> list[str]:
    if find_buildx() is not None:
        return ["docker", "buildx", "build", "--load", "--provenance=false"]
    return ["docker", "build"]


def measure_hits(folder: Path, hits: int) -> None:
    """Second launches through server, queue and agent."""
    seconds = []
    with ExitStack() as stack:
        server = stack.enter_context(ControlPlane.start(folder / "server"))
        env = program_environment(folder / "home", url=server.url, key=server.key)
        fleet = Fleet(server, Shell(folder / "work", env=env, programs=stack))
        fleet.make_queue("containers", "local-container")
        job = make_job(fleet)
        events = stack.enter_context(EngineEvents())
        agent = stack.enter_context(fleet.agent(CONFIG.format(state_dir=folder / "state")))
        for number in range(hits + 1):
            item = fleet.push(
                "containers", job=job, resource_args={"local-container": {"network": "none"}}
            )
            fleet.wait_for_item("containers", item, ENDED, within_seconds=300)
            claimed = claimed_at(agent.program.output, item)
            [created] = [
                one.seconds
                for one in events.seen
                if one.action == "create" and one.facts.get("launch-async.item") == item
            ]
            if number:
                seconds.append(created - claimed)
        tag = next((folder / "state" / "builds" / "logs").glob("la-*")).name[:43]
    docker("rmi", f"launch-async/job:{tag}")
    print(f"\nhit, from the claim to `docker create`: {shown([1000 * one for one in seconds])} ms")


def make_job(fleet: Fleet) -> str:
    for path in write_code(fleet.shell.folder / "code").iterdir():
        if path.name == "main.py":
            path.write_text("raise SystemExit(3)\n")
    named = ["--project", "jobs", "--entity", fleet.entity, "--name", "bench"]
    entry = ["--entry-point", "python main.py", "--dockerfile", "Dockerfile"]
    fleet.shell.run("wandb", "job", "create", *named, *entry, "code", "./code")
    return f"{fleet.entity}/jobs/bench:latest"


def claimed_at(output: str, item: str) -> float:
    """When the agent had claimed it, by its log."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    [line] = [one for one in lines if one.get("item") == item and one.get("phase") == "preparing"]
    return float(
        msgspec.convert(line["timestamp"], type=__import__("datetime").datetime).timestamp()
    )


def measure_large(folder: Path, ways: Sequence[str], megabytes: int) -> None:
    before = cache_records()
    print(f"\na context of {megabytes} MB, once each: seconds, and the sender's memory in MB")
    for name in ("plain", *ways):
        code = write_code(folder / f"large-{name}", LARGE)
        with (code / "large.bin").open("wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(10**6))
        try:
            if name == "plain":
                seconds, megabytes_used = plainly_large(code)
            else:
                seconds, megabytes_used = ours_large(code, name)
            print(f"  {name:8} {seconds:6.1f} s   {megabytes_used:6.0f} MB")
        finally:
            (code / "large.bin").unlink()
            remove_cache(before)


def plainly_large(code: Path) -> tuple[float, float]:
    began = time.perf_counter()
    image = plain(code)
    seconds = time.perf_counter() - began
    docker("rmi", image)
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def ours_large(code: Path, buildx: str) -> tuple[float, float]:
    """In a process of its own, so that its memory is known."""
    command = [sys.executable, __file__, "--worker", str(code), buildx]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told = json.loads(done.stdout)
    docker("rmi", told["image"])
    return told["seconds"], told["grown_mb"]


async def work(code: Path, buildx: str) -> int:
    async with maker_in(code.parent / f"state-{buildx}", buildx) as maker:
        small = await timed("ours", maker.build, write_code(code.parent / f"small-{buildx}"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, image = await timed("ours", maker.build, code)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if buildx == "always":  # it sends the context
            grown += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    docker("rmi", small[1])
    print(json.dumps({"seconds": seconds, "grown_mb": grown, "image": image}))
    return 0


class LocalCode:
    """Implements `ports.jobs.CodeStore`: an artifact's id is its folder."""

    @asynccontextmanager
    async def code(self, source: ArtifactSource | GitSource) -> AsyncGenerator[Code, None]:
        assert isinstance(source, ArtifactSource)
        yield Code(folder=Path(source.artifact_id), key=source.artifact_id)


class Nobody:
    """No logins, and a registry that has nothing."""

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        del image
        return None

    async def find(self, image: ImageRef) -> str | None:
        del image
        return None


@asynccontextmanager
async def maker_in(state: Path, buildx: str) -> AsyncGenerator[ImageMaker, None]:
    """The flow as the agent has it, on the engine."""
    connection, nobody = DockerConnection(), Nobody()
    section = msgspec.convert({"buildx": buildx}, BuilderSection)
    maker = image_maker(
        section,
        code=LocalCode(),
        connection=connection,
        logins=nobody,
        registry=nobody,
        ready=anyio.lowlevel.checkpoint,
        folder=state / "builds",
        private=state / "logins",
        slots=anyio.CapacityLimiter(2),
        keep=Keep(max_age_seconds=1e9, max_bytes=10**9),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(maker.serve)
        try:
            yield maker
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await connection.close()


def order_of(code: Path) -> BuildOrder:
    item = Item(
        id=ItemId("item"),
        queue=QueueRef("e", "p", "q"),
        run_id=RunId("run"),
        spec=RunSpec(entity="e", project="p", job="e/p/j:v0"),
        popped_at=time.time(),
    )
    job = Job(source=ArtifactSource(str(code)), dockerfile="Dockerfile")
    return BuildOrder(item=item, job=job, entrypoint=("python", "main.py"))


def write_code(folder: Path, recipe: str = RECIPE) -> Path:
    """Two hundred modules that nobody has built before."""
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(recipe)
    (folder / "main.py").write_text(f"print({uuid4().hex!r})\n")
    for number in range(200):
        (folder / f"module{number}.py").write_text(f"X = {number}\n" * 100)
    return folder


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], check=True, capture_output=True, text=True)
    return done.stdout


def cache_records() -> dict[str, int]:
    """Sizes of what the engine's builder keeps, by id."""
    told = _ask_engine("GET", "/system/df")
    return {one["ID"]: one["Size"] for one in told.get("BuildCache") or ()}


def remove_cache(before: Mapping[str, int]) -> None:
    """What is new and as large as only ours can be."""
    for _ in range(3):  # what others need goes after them
        for record, size in cache_records().items():
            if record not in before and size >= MANY_BYTES:
                filters = quote(json.dumps({"id": [record]}))
                _ask_engine("POST", f"/build/prune?all=true&filters={filters}")


def _ask_engine(method: str, path: str) -> dict[str, Any]:
    command = ["curl", "-sg", "--unix-socket", "/var/run/docker.sock", "-X", method]
    done = subprocess.run([*command, f"http://d{path}"], check=True, capture_output=True)
    return dict(json.loads(done.stdout))


def shown(numbers: Sequence[float]) -> str:
    median = statistics.median(numbers)
    return f"{median:.3g} ({min(numbers):.3g} to {max(numbers):.3g})"


if __name__ == "__main__":
    sys.exit(main())
