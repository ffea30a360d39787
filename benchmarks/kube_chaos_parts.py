"""The pods of the chaos run on Kubernetes, and what is held against the queue's word about them."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

ENDED = {"FINISHED", "FAILED", "STOPPED"}
ENDS = [(0, True)] * 5 + [(0, False), (1, False), (3, True), (7, False)]
"""Exit codes, and whether wandb.init was called."""
LOST_WORDS = "lost its journal"
NO_RUN = "never called wandb.init"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One item's pod, and how it ends."""

    number: int
    seconds: float
    code: int
    told: bool
    """Whether its program calls wandb.init."""

    @property
    def promised(self) -> tuple[str, str]:
        """State and words of its item."""
        if self.code:
            return "FAILED", f"exited with code {self.code}"
        return ("FINISHED", "") if self.told else ("FAILED", NO_RUN)


def parts(seed: int, count: int, *, longest: float, shortest: float = 0.0) -> list[Part]:
    """The same for the same seed: almost half of them end badly."""
    chance = random.Random(f"{seed} parts")
    made = []
    for number in range(count):
        code, told = chance.choice(ENDS)
        more = chance.choice([0.0, chance.uniform(0, 2), chance.uniform(1, longest)])
        seconds = round(shortest + more, 1)
        made.append(Part(number=number, seconds=seconds, code=code, told=told))
    return made


def faults_of(
    pushed: Mapping[str, Part],
    *,
    items: Mapping[str, Mapping[str, Any]],
    jobs: Mapping[str, int],
    ends: Mapping[str, Sequence[int | None]],
    again: Sequence[str] = (),
    journal: bool = True,
) -> dict[str, list[int]]:
    """The numbers of the items that did not go as they should, by what the witness saw.

    `jobs` counts those that were ever made for an item; `ends` has a code for each of its pods,
    None for one that did not end; those of `again` were cancelled and pushed again, as nobody had
    them. Without a `journal` an item that followed its run to its end may lack the agent's words.
    """
    faults: dict[str, list[int]] = {"lost": [], "doubled": [], "wrong": []}
    for item_id, part in pushed.items():
        item, made, truths = items[item_id], jobs.get(item_id, 0), ends.get(item_id, ())
        said = f"{part}: {made} Jobs, pods {truths}; the queue has {item}"[:700]
        if made > 1 or len(truths) > 1:
            faults["doubled"].append(part.number)
            print("doubled:", said)
        if item_id in again:
            if item["state"] not in {"STOPPED", "CLAIMED"} or made:
                faults["wrong"].append(part.number)
                print("wrong, though pushed again:", said)
            continue
        if item["state"] not in ENDED or not made:
            faults["lost"].append(part.number)
            print("lost:", said)
            continue
        if item["state"] == "FAILED" and LOST_WORDS in (item["message"] or ""):
            continue  # found before it began, and with it no order to begin it
        state, words = part.promised
        followed = part.told and not journal and item["message"] is None
        told = item["state"] == state and (followed or words in (item["message"] or ""))
        if list(truths) != [part.code] or not told:
            faults["wrong"].append(part.number)
            print("wrong:", said)
    return faults
