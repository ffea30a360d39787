"""Jobs whose images are cheap to build, and witnesses of builds that are not ours.

One job has a Dockerfile for each fault; an item names the one that it wants. Runs exit with 3.
"""

import subprocess
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from agent_harness import Fleet
from engine_events import EngineEvents
from fault_harness import Life, Site, run

CODE_3 = "exited with code 3"
LOCAL = "launch-async/job"
PART = uuid4().hex[:12]
"""Makes what is built here new, whatever the engine has."""
_DIGITS = int(PART[:7], 16)
NAPS = {name: f"{600 + number}.{_DIGITS}" for number, name in enumerate(["a", "b", "c"])}
"""Seconds that nobody else on this machine sleeps: so a RUN is known."""
SHORT_NAP = f"2.{_DIGITS}"
"""Of a RUN that ends; with another `builder.build-args.SALT` no cache cuts it short."""
DOCKERFILES = {
    "plain": "FROM TINY\nCOPY . /code/\nWORKDIR /code\n",
    "other": "FROM TINY\nCOPY . /code/\nWORKDIR /code\nRUN : other\n",
    "large": "FROM TINY\nCOPY . /code/\nWORKDIR /code\nRUN : large\n",
    "short": f"FROM TINY\nARG SALT\nCOPY . /code/\nWORKDIR /code\nRUN sleep {SHORT_NAP}\n",
    "fails": f"FROM TINY\nCOPY part /\nRUN sleep {SHORT_NAP}; seq 999; echo last words; exit 7\n",
    **{name: f"FROM TINY\nCOPY part /\nRUN sleep {nap}\n" for name, nap in NAPS.items()},
}
LARGE_BYTES = 3_000_000
FILES = {
    "main.sh": "echo ran\nexit 3\n",
    "part": PART,
    "ballast": "x" * LARGE_BYTES,
    ".dockerignore": "ballast\n",
    "Dockerfile.large.dockerignore": "",
    **{f"Dockerfile.{name}": text for name, text in DOCKERFILES.items()},
}


def files_of(tiny_image: str) -> dict[str, str]:
    return {path: text.replace("TINY", tiny_image) for path, text in FILES.items()}


def make_job(user: Fleet, name: str, files: Mapping[str, str], *more: str) -> str:
    """Create a code job with the real CLI; its reference."""
    folder = f"{name}-{uuid4().hex[:6]}"
    for path, text in files.items():
        user.shell.write(f"{folder}/{path}", text)
    return create_job(user, name, "code", f"./{folder}", *more)


def create_job(user: Fleet, name: str, *words: str, **env: str) -> str:
    """`wandb job create`: kind, place and options."""
    entry = [] if "--entry-point" in words else ["--entry-point", "sh main.sh"]
    named = ["--project", "jobs", "--entity", user.entity, "--name", name]
    kind, place, *more = words
    user.shell.run("wandb", "job", "create", *named, *entry, *more, kind, place, **env)
    return f"{user.entity}/jobs/{name}:latest"


def launch(site: Site, queue: str, dockerfile: str, job: str = "image_job", **more: Any) -> str:
    """Push an item of the job, to be built with one of its Dockerfiles."""
    reference = job if "/" in job else str(site._ask(job))
    return site.push(
        queue,
        job=reference,
        overrides={"dockerfile": f"Dockerfile.{dockerfile}"} if dockerfile else {},
        resource_args={"local-container": {"network": "none"} | more},
    )


def direct(site: Site) -> dict[str, str]:
    """For agents that reach the engine itself: the proxy does not pass on that a client hung up."""
    return {"DOCKER_HOST": str(site._ask("docker_engine").url)}  # type: ignore[union-attr]


def cancel(life: Life, item: str, token: Path) -> None:
    """By the agent's operator."""
    request = urllib.request.Request(  # noqa: S310 - our own
        f"{life.admin.admin}/items/{item}/cancel",
        method="POST",
        headers={"Authorization": f"Bearer {token.read_text()}"},
    )
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def tagged() -> EngineEvents:
    """The images that the engine names: one event for each build."""
    return EngineEvents("event=tag", kind="image")


def times(events: EngineEvents, tag: str, repository: str = LOCAL) -> int:
    """How often the engine made this image."""
    return [event.facts["name"] for event in events.seen].count(f"{repository}:{tag}")


def tags_of(site: Site) -> list[str]:
    """Of what was built for this site, oldest first, each try; its logs are named after them."""
    logs = (site.state_dir / "builds" / "logs").glob("la-*.log")
    return [path.name[:43] for path in sorted(logs, key=lambda path: path.stat().st_mtime)]


def is_there(tag: str, repository: str = LOCAL) -> bool:
    return bool(run("docker", "images", "-q", f"{repository}:{tag}"))


def remove_images(site: Site, repository: str = LOCAL) -> None:
    names = [f"{repository}:{tag}" for tag in set(tags_of(site)) if is_there(tag, repository)]
    if names:
        subprocess.run(["docker", "rmi", "--force", *names], capture_output=True, check=False)


def sleeping(seconds: str) -> bool:
    """Whether any process of this machine, in containers too, sleeps for just so long."""
    return any(line.endswith(f"sleep\0{seconds}\0") for line in command_lines())


def command_lines() -> list[str]:
    """Of all processes of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace"))
    return found


def leftovers(site: Site) -> list[str]:
    """What builds leave behind, and should not."""
    staged = (site.state_dir / "builds" / "staged").glob("*/*")
    return [str(path) for path in (*staged, *(site.state_dir / "logins").glob("*"))]


def bundle_file(site: Site, life: Life, item: str, path: str) -> str:
    """A file of a failed item's bundle, as the server got it."""
    return site.fleet.file_of(life.admin.status()["name"], f"{item}/{path}")
