"""The moments at which chaos runs strike, and the lives of an agent that is killed at them."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from agent_harness import Fleet, RunningAgent
from programs import Program, Shell

CONFIG_FILE = "launch-config.yaml"
PHASES = ("claiming", "preparing", "launching", "running", "reporting")
EARLY = 0.3
"""Share of the agent's lives that are cut short in their start."""
IN_PHASE = 0.6
"""Share of the other kills that wait for an item to enter a phase."""
PHASE_SECONDS = 3.0
PROGRESS_SECONDS = 20.0
"""How long a kill waits for its progress: leases of a minute may hold up the rest."""
ITEMS = """query Items($entity: String!, $queue: String!, $after: String) {
  project(name: "model-registry", entityName: $entity) { runQueue(name: $queue) {
    runQueueItems(first: 100, after: $after) {
      edges { node { id state message } } pageInfo { hasNextPage endCursor }
    }
  } }
}"""


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """One moment."""

    whom: str
    begun: int
    """Jobs that must have begun; 0: it does not matter."""
    phase: str = ""
    """Then an item must enter this phase."""
    seconds: float = 0.0
    """Then so long."""
    down: float = 0.0
    """How long the server stays away."""


def plan(seed: int, *, items: int, kills: int, server_kills: int) -> list[Kill]:
    """The moments, spread over the first nine tenths of the drain; the same for the same seed."""
    chance = random.Random(f"{seed} moments")
    made: list[Kill] = []
    for number in range(kills):
        if chance.random() < EARLY:
            kill = Kill(whom="agent", begun=0, seconds=round(chance.uniform(0.05, 2.0), 3))
        else:
            in_phase = chance.random() < IN_PHASE
            kill = Kill(
                whom="agent",
                begun=round(0.9 * items * number / kills),
                phase=chance.choice(PHASES) if in_phase else "",
                seconds=round(chance.uniform(0, 0.05 if in_phase else 1.5), 3),
            )
        made.append(kill)
    for number in range(server_kills):
        share = (number + chance.random()) / server_kills
        kill = Kill(
            whom="server",
            begun=round(0.9 * items * share),
            seconds=round(chance.uniform(0, 1.0), 3),
            down=round(chance.uniform(0, 3.0), 3),
        )
        made.insert(round(share * len(made)), kill)
    return made


class Lives:
    """One agent's, of a configuration file in a shell's folder; `keep` gets what each printed."""

    def __init__(self, shell: Shell, keep: Callable[[str], None]) -> None:
        self.begun = self.killed = 0
        self.agent: Program | None = None
        self._shell = shell
        self._keep = keep

    def begin(self) -> Program:
        self.begun += 1
        command = ["launch-async", "agent", "-c", CONFIG_FILE]
        self.agent = Program(command, env=self._shell.env, cwd=self._shell.folder)
        return self.agent

    def end(self, *, kill: bool) -> int:
        """The agent's exit code."""
        assert self.agent is not None
        if kill:
            code = self.agent.process.poll()
            if code is not None:
                self.agent.end()  # all of its output is read then
                raise AssertionError(f"it died by itself with {code}:\n{self.agent.output}")
            self.agent.process.kill()
            self.killed += 1
        else:
            self.agent.interrupt()
        code = self.agent.wait(within_seconds=60)
        self._keep(self.agent.output)
        return code

    def suffer(
        self,
        kills: Sequence[Kill],
        *,
        wait_for: Callable[[int], None],
        strike: Callable[[Kill], None],
    ) -> None:
        """`strike` at each moment; `wait_for` waits until so many jobs have begun."""
        for kill in kills:
            wait_for(kill.begun)
            if kill.phase:
                self._wait_for_phase(kill.phase)
            time.sleep(kill.seconds)
            strike(kill)

    def running(self) -> RunningAgent:
        """This life, once its admin endpoint is there."""
        assert self.agent is not None
        admin = self.agent.wait_for(r'"url": "(http://[^"]+)", "event": "admin endpoint"')[1]
        return RunningAgent(self.agent, admin)

    def drop(self) -> None:
        """Leave no process behind, however it went."""
        if self.agent is not None:
            self.agent.kill()

    def _wait_for_phase(self, phase: str) -> None:
        """The next time that an item enters it in this life; not for ever."""
        assert self.agent is not None
        word = f'"phase": "{phase}"'
        seen = self.agent.output.count(word)
        end = time.monotonic() + PHASE_SECONDS
        while self.agent.output.count(word) <= seen and time.monotonic() < end:
            time.sleep(0.005)


def items_of(fleet: Fleet, queue: str) -> Mapping[str, dict[str, Any]]:
    """All items as their queue has them, by id."""
    after, found = None, {}
    while True:
        answer = fleet.control_plane.ask(ITEMS, entity=fleet.entity, queue=queue, after=after)
        page = answer["project"]["runQueue"]["runQueueItems"]
        found |= {edge["node"]["id"]: edge["node"] for edge in page["edges"]}
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]
