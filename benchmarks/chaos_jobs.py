"""The jobs of the chaos run, and what is known of them without asking us.

A process appends `begin N` to a file, and `end N HOW` as the last thing that it does. A container
is seen by the engine: its event stream has each start and each end. A job with a run tells the API
of it in two plain requests, without the wandb client: upsertBucket, then the run's end. It asks
again until it is answered. The run's end is the end of its key too, so that a second telling, when
the first one's answer was lost, may be refused with 401: it was heard.
"""

import random
import subprocess
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
from engine_events import EngineEvents

TINY = "launch-async-test/tiny:latest"
ITEM_LABEL = "launch-async.item"
KILLED = 128 + 9

PROCESS = """
import os, signal, sys, time, urllib.error, urllib.request, json, base64
witness, number, told, seconds, code = sys.argv[1:]
env = os.environ

def say(line):
    with open(witness, "a") as file:  # one write, to the file's end
        file.write(line + "\\n")

def post(path, body):
    login = base64.b64encode(f"api:{env['WANDB_API_KEY']}".encode()).decode()
    head = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    request = urllib.request.Request(env["WANDB_BASE_URL"] + path, json.dumps(body).encode(), head)
    for attempt in range(600):
        try:
            return urllib.request.urlopen(request, timeout=10).read()
        except (urllib.error.URLError, OSError) as error:
            if attempt and getattr(error, "code", 0) == 401:
                return
            time.sleep(0.2)
    sys.exit(99)

entity, project, run = env["WANDB_ENTITY"], env["WANDB_PROJECT"], env["WANDB_RUN_ID"]
say(f"begin {number}")
if told == "yes":
    post("/graphql", {"query": "mutation { upsertBucket(input: {name: %s, entityName: %s, "
         "modelName: %s}) { bucket { id } } }" % tuple(map(json.dumps, (run, entity, project)))})
time.sleep(float(seconds))
print("job", number, "leaves with", code)
if told == "yes":
    post(f"/files/{entity}/{project}/{run}/file_stream",
         {"complete": True, "exitcode": max(0, int(code))})
say(f"end {number} {code}")
if int(code) < 0:
    os.kill(os.getpid(), -int(code))
sys.exit(int(code))
"""

CONTAINER = r"""
number=$1 told=$2 seconds=$3 code=$4
auth=$(printf 'api:%s' "$WANDB_API_KEY" | base64 | tr -d '\n')
ask() {  # the second kept open: a server may drop a request whose sender has hung up
    printf 'POST %s HTTP/1.0\r\nAuthorization: Basic %s\r\n' "$1" "$auth"
    printf 'Content-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' ${#2} "$2"
    sleep 1
}
post() {
    tries=0 fine=' 200 '
    until ask "$@" | nc -w 5 127.0.0.1 "${WANDB_BASE_URL##*:}" | head -n 1 | grep -qE "$fine"; do
        tries=$((tries + 1)); [ $tries -lt 120 ] || exit 99
        fine=' (200|401) '
    done
}
if [ $told = yes ]; then
    names="name: \\\"$WANDB_RUN_ID\\\", entityName: \\\"$WANDB_ENTITY\\\""
    names="$names, modelName: \\\"$WANDB_PROJECT\\\""
    post /graphql "{\"query\": \"mutation { upsertBucket(input: {$names}) { bucket { id } } }\"}"
fi
sleep $seconds
echo "job $number leaves with $code"
if [ $told = yes ]; then
    post "/files/$WANDB_ENTITY/$WANDB_PROJECT/$WANDB_RUN_ID/file_stream" \
        "{\"complete\": true, \"exitcode\": $code}"
fi
[ $code = 137 ] && kill -9 $$
exit $code
"""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One item's job and how it will end."""

    number: int
    contained: bool
    told: bool
    """Whether it tells the API of a run."""
    seconds: float
    code: int
    """Exit code; -9 for a process that kills itself, 137 for such a container."""

    @property
    def queue(self) -> str:
        return "containers" if self.contained else "processes"

    def spec(self, *, job: str, image: str, witness: Path) -> dict[str, Any]:
        """What is pushed."""
        words = [str(self.number), "yes" if self.told else "no", f"{self.seconds}", str(self.code)]
        if self.contained:
            args = ["sh", "-c", CONTAINER, "job", *words]
            return {"docker": {"docker_image": image}, "overrides": {"args": args}}
        return {"job": job, "overrides": {"args": [str(witness), *words]}}


def jobs(seed: int, count: int) -> list[Job]:
    """The same for the same seed: half of them contained, two in five end badly."""
    chance = random.Random(f"{seed} jobs")
    made = []
    for number in range(count):
        contained = number % 2 == 1
        end, told = chance.choice(
            [(0, True)] * 6 + [(0, False), (1, False), (3, True), (7, False), (-9, False)]
        )
        made.append(
            Job(
                number=number,
                contained=contained,
                told=told,
                seconds=round(chance.choice([0.0, chance.uniform(0, 2), chance.uniform(1, 8)]), 2),
                code=KILLED if contained and end < 0 else end,
            )
        )
    return made


def promised(job: Job, truth: int) -> tuple[str, str]:
    """State and words of an item whose job ended with `truth`, as its backend says."""
    if truth == 0 and job.told:
        return "FINISHED", ""
    if truth == 0:
        return "FAILED", "never called wandb.init"
    if truth < 0:
        return "FAILED", f"ended by signal {-truth}"
    return "FAILED", f"exited with code {truth}"


class Witnesses:
    """The jobs' own file and the engine's event stream, from now to the end of the block.

    The image has a name for this block alone: other servers on this machine count their items from
    one as well, and the engine tells of all containers.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.touch()
        self.image = f"launch-async-chaos/{uuid.uuid4().hex}:latest"
        self._events = EngineEvents(f"image={self.image}", f"label={ITEM_LABEL}")

    def __enter__(self) -> Self:
        subprocess.run(["docker", "tag", TINY, self.image], check=True, timeout=30)
        self._events.__enter__()
        return self

    def __exit__(self, *about: object) -> None:
        self._events.__exit__(*about)
        command = ["docker", "rmi", "-f", self.image]
        subprocess.run(command, check=True, timeout=30, capture_output=True)

    def begun(self, pushed: Mapping[str, Job]) -> Counter[int]:
        """How often each job began."""
        words = [line.split() for line in self.file.read_text().splitlines()]
        seen = Counter(int(said[1]) for said in words if said[0] == "begin")
        return seen + Counter(
            pushed[event.facts[ITEM_LABEL]].number
            for event in self._events.seen
            if event.action == "start" and event.facts[ITEM_LABEL] in pushed
        )

    def ends(self, pushed: Mapping[str, Job]) -> dict[int, Sequence[int]]:
        """How each job ended, by those who saw it; more than one end is one too many."""
        found: dict[int, list[int]] = {job.number: [] for job in pushed.values()}
        for line in self.file.read_text().splitlines():
            match line.split():
                case ["end", number, code]:
                    found[int(number)].append(int(code))
        for event in self._events.seen:
            job = pushed.get(event.facts[ITEM_LABEL])
            if event.action == "die" and job is not None:
                found[job.number].append(int(event.facts["exitCode"]))
        return dict(found)
