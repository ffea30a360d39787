"""Breaks the life-cycle rules one by one, each by a line or so, and sees a test fail for each.

    .venv/bin/python benchmarks/mutants.py [--only WORD] [--jobs 2]

mutants.toml lists them: the file, the text as it is (found once), what it becomes, the rule that is
broken by it, and the tests that guard the rule. Each is tried in a copy of this checkout, never in
the checkout itself. Tests that fail without a mutation catch none. Exits 1 when a mutant survives,
2 when the list does not fit the code any more.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutants.toml")
SOURCE = "src/launch_async"
TEST_SECONDS = 400
HUNG = "(hung)"
PASSED, FAILED = 0, 1


class Broken(Exception):
    """The tests could not be run."""


class Mutant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One broken rule."""

    rule: str
    file: str
    """Under src/launch_async."""
    old: str
    new: str
    tests: tuple[str, ...]

    def fault(self) -> str:
        """Why it cannot be tried; empty when it can."""
        path = ROOT / SOURCE / self.file
        if not path.exists():
            return f"{path} does not exist"
        missing = [test for test in self.tests if not (ROOT / test).exists()]
        if missing or not self.tests:
            return f"no tests: {missing}"
        count = path.read_text().count(self.old)
        return "" if count == 1 else f"{self.old!r} is {count} times in {self.file}, not once"


def listed() -> list[Mutant]:
    """All mutants."""
    return msgspec.convert(tomllib.loads(LIST.read_text())["mutant"], list[Mutant])


class Copy:
    """This checkout's files, as they are now, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
        for name in filter(None, listing.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def killers(self, mutant: Mutant, *, without: Sequence[str] = ()) -> list[str]:
        """The first test that fails for it, twice; none if it survives. `without` are not asked."""
        path = self._folder / SOURCE / mutant.file
        sound = path.read_text()
        path.write_text(sound.replace(mutant.old, mutant.new))
        moody = list(without)
        try:
            while killers := self.failing(
                ["-x", *mutant.tests, *(f"--deselect={test}" for test in moody)]
            ):
                if killers[0] == HUNG or self.failing(killers):
                    return killers
                moody += killers  # fails now and then, on a busy machine say: proves nothing
        finally:
            path.write_text(sound)
        return []

    def failing(self, words: Sequence[str]) -> list[str]:
        """The tests that fail.

        Raises:
            Broken: what breaks the start of the tests (a name that is gone, say) proves nothing.
        """
        command = [sys.executable, "-m", "pytest", "-q", "--database", "sqlite", *words]
        env = os.environ | {"PYTHONPATH": str(self._folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=env, capture_output=True, text=True,
                timeout=TEST_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return [HUNG]
        if done.returncode not in (PASSED, FAILED):
            raise Broken(f"pytest exited with {done.returncode}: {done.stdout[-600:]}")
        lines = done.stdout.splitlines()
        failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
        if done.returncode == FAILED and not failed:
            raise Broken(f"pytest failed and named no test: {done.stdout[-600:]}")
        return [line.partition(" ")[2].partition(" - ")[0] for line in failed]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="mutants whose rule or file has this word")
    parser.add_argument("--jobs", type=int, default=2)
    said = parser.parse_args()
    mutants = [one for one in listed() if said.only in one.rule or said.only in one.file]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copies = [Copy(Path(folder) / str(number)) for number in range(said.jobs)]
        counts = Counter(try_all(mutants, copies))
    took = time.monotonic() - began
    print(
        f"{counts['caught']} of {len(mutants)} mutants caught in {took:.0f} s,",
        f"{counts['survived']} survived, {counts['broken']} could not be tried",
    )
    sys.exit(2 if counts["broken"] else 1 if counts["survived"] else 0)


def try_all(mutants: Sequence[Mutant], copies: Sequence[Copy]) -> list[str]:
    """The verdict on each: `caught`, `survived` or `broken`."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)
    sick = copies[0].failing(sorted({test for one in mutants for test in one.tests}))
    for test in sick:
        print(f"fails without a mutation, so that it catches none: {test}", flush=True)

    def attempt(mutant: Mutant) -> str:
        copy = free.get()
        who = mutant.fault()
        try:
            killers = [] if who else copy.killers(mutant, without=sick)
        except Broken as error:
            who, killers = str(error), []
        finally:
            free.put(copy)
        verdict = "broken" if who else "caught" if killers else "survived"
        print(f"{verdict:8} {mutant.file}: {mutant.rule}  [{who or ' '.join(killers)}]", flush=True)
        return verdict

    with ThreadPoolExecutor(len(copies)) as threads:
        return list(threads.map(attempt, mutants))


if __name__ == "__main__":
    main()
