"""Breaks the life-cycle rules one by one, each by a line or so, and sees a test fail for each.

    .venv/bin/python benchmarks/mutants.py [--only WORD] [--jobs 2]

mutants.toml lists them: the file, the text as it is (found once), what it becomes, the rule that is
broken by it, and the tests that guard the rule. Each is tried in a copy of this checkout, never in
the checkout itself. First the tests must pass without a mutation. Exits 1 when a mutant survives, 2
when the list does not fit the code any more.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutants.toml")
SOURCE = "src/launch_async"
TEST_SECONDS = 240
SOUND_TRIES = 3
"""How often tests may be tried until they pass without a mutation: a busy machine is no mutant."""
PASSED, FAILED = 0, 1


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
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def survives(self, mutant: Mutant) -> tuple[bool, str]:
        """Whether its tests pass all the same, and who failed."""
        path = self._folder / SOURCE / mutant.file
        sound = path.read_text()
        path.write_text(sound.replace(mutant.old, mutant.new))
        try:
            return self.passes(mutant.tests)
        finally:
            path.write_text(sound)

    def passes(self, tests: tuple[str, ...]) -> tuple[bool, str]:
        """Whether tests pass; and the first that does not."""
        words = [sys.executable, "-m", "pytest", "-x", "-q", "--database", "sqlite", *tests]
        env = os.environ | {"PYTHONPATH": str(self._folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                words, cwd=self._folder, env=env, capture_output=True, text=True,
                timeout=TEST_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, f"hung for {TEST_SECONDS} s"
        if done.returncode not in (PASSED, FAILED):
            # What breaks the tests' own start (a name that is gone, say) proves nothing.
            return False, f"BROKEN: pytest exited {done.returncode}: {done.stdout[-800:]}"
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return done.returncode == PASSED, failed[0].split(" - ")[0] if failed else ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="mutants whose rule or file has this word")
    parser.add_argument("--jobs", type=int, default=2)
    said = parser.parse_args()
    every = [one for one in listed() if said.only in one.rule or said.only in one.file]
    mutants = [one for one in every if not one.fault()]
    for one in every:
        if one not in mutants:
            print(f"does not fit the code: {one.rule}: {one.fault()}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        survivors, broken = try_all(
            mutants, [Copy(Path(folder) / str(n)) for n in range(said.jobs)]
        )
    caught = len(mutants) - survivors - broken
    broken += len(every) - len(mutants)
    print(f"{caught} of {len(every)} mutants caught in {time.monotonic() - began:.0f} s,",
          f"{survivors} survived, {broken} could not be tried")  # fmt: skip
    sys.exit(2 if broken else 1 if survivors else 0)


def try_all(mutants: list[Mutant], copies: list[Copy]) -> tuple[int, int]:
    """How many survived, and how many could not be tried."""
    free, lock = list(copies), threading.Lock()
    counts = {"survived": 0, "broken": 0}
    unsound: set[tuple[str, ...]] = set()

    def check(tests: tuple[str, ...]) -> None:
        with lock:
            copy = free.pop()
        for _ in range(SOUND_TRIES):
            passed, why = copy.passes(tests)
            if passed:
                break
        with lock:
            free.append(copy)
        if not passed:
            print(f"without a mutation: {' '.join(tests)} fails: {why}", flush=True)
            unsound.add(tests)

    def attempt(mutant: Mutant) -> None:
        with lock:
            copy = free.pop()
        survives, who = copy.survives(mutant)
        with lock:
            free.append(copy)
        broken = who.startswith("BROKEN")
        verdict = "survived" if survives else "broken" if broken else "caught"
        if verdict in counts:
            counts[verdict] += 1
        print(f"{verdict:8} {mutant.file}: {mutant.rule}  [{who}]", flush=True)

    with ThreadPoolExecutor(len(copies)) as threads:
        list(threads.map(check, sorted({one.tests for one in mutants})))
        list(threads.map(attempt, [one for one in mutants if one.tests not in unsound]))
    counts["broken"] += sum(one.tests in unsound for one in mutants)
    return counts["survived"], counts["broken"]


if __name__ == "__main__":
    main()
