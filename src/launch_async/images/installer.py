"""Installs a list of requirements into the environment whose Python runs this, within an image.

A program of its own: it is copied into build contexts as text, needs the standard library alone
and runs on any Python since 3.8.

```
installer.py [--with uv] [--cache FOLDER] [--frozen [--note FILE]] [--line LINE]... [LIST]
             [--then PROGRAM...]
```

What can only be compiled is tried again with compilers, where `apt-get` has them. A frozen list
(all that was installed elsewhere) is installed as far as it can be: each package that cannot be
had is said in a line of its own, which `launch_async.images.dependencies` reads, and in the note,
as builders say nothing of what they had built before. An index that cannot be reached is a
failure, never a package that is missing.

Where nothing is built this runs in the container before the program, and then becomes it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import deque
from pathlib import Path

PYTORCH = "https://download.pytorch.org/whl"
TAIL_LINES = 400

_VARIANT = re.compile(r"[\w.-]+\s*==\s*[^\s;+]+\+(cu\d+|cpu|rocm[\d.]+|xpu)\b")
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")
_PINNED = re.compile(r"[A-Za-z0-9][\w.-]*(?:\[[\w.,-]*\])?\s*==\s*[\w.!+-]+")
_PATH = re.compile(r"(?:-e |--editable[ =])?(?:[./]|file:)|[^/]*@\s*file:")
_NOT_THERE = re.compile(
    r"No matching distribution found for ([\w.-]+)"
    r"|Because ([\w.-]+) was not found"
    r"|Because there is no version of ([\w.-]+)"
)
_NO_COMPILER = re.compile(
    r"[Cc]annot find command 'git'|Git executable not found|git: not found|'git'"
    r"|\bgcc\b|\bg\+\+|\bcc\b|[Cc]ompiler|Python\.h|Failed building wheel|Failed to build"
    r"|subprocess-exited-with-error"
)
_UNREACHABLE = re.compile(
    r"WARNING: Retrying \(Retry\(total=0|^ERROR: .*HTTPS?ConnectionPool"
    r"|^error: (?:Failed to fetch|Request failed)|error sending request for url"
)


class Failed(Exception):
    """Nothing more can be done; the text is the last line of the log."""


class Installer:
    """pip or uv, with compilers once they are needed."""

    def __init__(self, scratch: Path, cache: str | None, *, with_uv: bool) -> None:
        self._scratch = scratch
        self._with_uv = with_uv
        self._has_compilers = False
        cache = cache or str(scratch / "cache")
        self._environment = dict(
            os.environ,
            PIP_NO_INPUT="1",
            PIP_PROGRESS_BAR="off",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_ROOT_USER_ACTION="ignore",
            PIP_BREAK_SYSTEM_PACKAGES="1",  # an image's Python is the job's alone
            PIP_CACHE_DIR=cache,
            UV_CACHE_DIR=cache,
            UV_LINK_MODE="copy",
            UV_NO_PROGRESS="1",
            PYTHONUNBUFFERED="1",
        )
        self._environment.pop("PIP_NO_CACHE_DIR", None)

    def install(self, *words: str) -> str | None:
        """The end of what was said when the words could not be installed, else None."""
        said = self._run(self._tool() + list(words))
        if said is not None and _NO_COMPILER.search(said) and self._get_compilers():
            said = self._run(self._tool() + list(words))
        if said is not None and _UNREACHABLE.search(said):
            raise Failed("the package index could not be reached")
        return said

    def install_lines(self, lines: list[str], *words: str) -> str | None:
        """As `install`, for lines of a list."""
        path = self._scratch / "some.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return self.install(*words, "-r", str(path))

    def _tool(self) -> list[str]:
        pip = [sys.executable, "-m", "pip", "install"]
        if not self._with_uv:
            return pip
        folder = Path(__file__).resolve().with_name("uv")
        uv = folder / "bin" / "uv"
        if not uv.exists() and self._run([*pip, "--target", str(folder), "uv"]) is not None:
            raise Failed("uv could not be installed")
        return [str(uv), "pip", "install", "--python", sys.executable]

    def _get_compilers(self) -> bool:
        if self._has_compilers or shutil.which("apt-get") is None:
            return False
        self._has_compilers = True
        packages = ["build-essential", "ca-certificates", "git"]
        if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
            packages.append(f"python{sys.version_info[0]}.{sys.version_info[1]}-dev")
        _say("trying again with compilers and git")
        apt = [["update"], ["install", "-y", "--no-install-recommends", *packages]]
        return all(self._run(["apt-get", "-q", *words]) is None for words in apt)

    def _run(self, argv: list[str]) -> str | None:
        """None when the program succeeded, else the end of what it said; all is printed."""
        last: deque[str] = deque(maxlen=TAIL_LINES)
        with subprocess.Popen(
            argv,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                sys.stdout.write(line)
                sys.stdout.flush()
                last.append(line)
        return "".join(last) if process.returncode else None


class FrozenList:
    """Installs what can be had of a frozen list, without asking for what its packages need."""

    def __init__(
        self, installer: Installer, lines: list[str], pytorch: str, note: str | None
    ) -> None:
        self._installer = installer
        self._note = note
        self._options = [line for line in lines if line.startswith("-") and not _editable(line)]
        self._lines = [line for line in lines if line not in self._options]
        self._pytorch = pytorch
        # Paths of the machine where the list was made.
        self.missing = [line for line in self._lines if _PATH.match(line)]

    def install(self) -> None:
        """What could not be installed is said, and written down."""
        for variant, lines in self._groups():
            index = ["--extra-index-url", f"{self._pytorch}/{variant}"] if variant else []
            self._install(lines, index)
        told = "".join(
            f"launch-async: could not install: {_shown(line)}\n" for line in self.missing
        )
        sys.stdout.write(told)
        if self._note is not None:
            Path(self._note).write_text(told, encoding="utf-8")
        if any(_name(line) == "wandb" for line in self.missing):
            _say("without wandb the run would never show: its newest version is tried")
            if self._installer.install("wandb") is not None:
                raise Failed("wandb could not be installed")
        elif self.missing and len(self.missing) == len(self._lines):
            raise Failed("none of the listed packages could be installed")

    def _groups(self) -> list[tuple[str, list[str]]]:
        """PyTorch keeps wheels for one kind of machine in an index of their own; pip comes last."""
        groups: dict[str, list[str]] = {"": []}
        last = []
        for line in self._lines:
            variant = _VARIANT.match(line)
            if line in self.missing:
                continue
            if _name(line) == "pip":
                last.append(line)
            else:
                groups.setdefault(variant.group(1) if variant else "", []).append(line)
        return [*groups.items(), ("", last)]

    def _install(self, lines: list[str], index: list[str]) -> None:
        """Leave out what is named as missing; halve where nothing is named, down to one line."""
        while lines:
            said = self._installer.install_lines([*self._options, *lines], "--no-deps", *index)
            if said is None:
                return
            named = _named(said, lines)
            if named is None and len(lines) > 1:
                half = len(lines) // 2
                self._install(lines[:half], index)
                self._install(lines[half:], index)
                return
            culprit = named or lines[0]
            self.missing.append(culprit)
            lines = [line for line in lines if line is not culprit]


def _editable(line: str) -> bool:
    return line.startswith(("-e ", "--editable"))


def _name(line: str) -> str:
    """A requirement's name as indexes compare it; empty for a bare URL or path."""
    found = _NAME.match(line)
    if found is None or "/" in line.partition("@")[0]:
        return ""
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def _named(said: str, lines: list[str]) -> str | None:
    for groups in _NOT_THERE.findall(said):
        name = _name("".join(groups))
        for line in lines:
            if name and _name(line) == name:
                return line
    return None


def _shown(line: str) -> str:
    """A line for people: no URL, as one may hold a password."""
    pinned = _PINNED.match(line)
    egg = re.search(r"#(?:.*&)?egg=([\w.-]+)", line)
    return pinned.group() if pinned else _name(line) or (egg.group(1) if egg else "a URL or path")


def _lines_of(path: str) -> list[str]:
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").split("\n")]
    return [line for line in lines if line]


def _say(text: str) -> None:
    sys.stdout.write(f"launch-async: {text}\n")
    sys.stdout.flush()


def main() -> int:
    """Exit code 0 when the list is installed, a frozen one as far as it can be."""
    words, program = sys.argv[1:], []
    if "--then" in words:
        at = words.index("--then")
        words, program = words[:at], words[at + 1 :]
        sys.stdout = sys.stderr  # what the program prints may be read by another
    parser = argparse.ArgumentParser(description="Installs requirements, in an image.")
    parser.add_argument("--with", dest="tool", choices=["pip", "uv"], default="pip")
    parser.add_argument("--cache", help="folder that outlives the build")
    parser.add_argument("--frozen", action="store_true", help="install what can be had")
    parser.add_argument("--note", help="file for what could not be had")
    parser.add_argument("--pytorch", default=PYTORCH, help="PyTorch's indexes")
    parser.add_argument("--line", action="append", default=[], help="of a list without a file")
    parser.add_argument("list", nargs="?", help="file of requirements")
    chosen = parser.parse_args(words)
    if not _installed(chosen):
        return 1
    if program:
        _become(program)
    return 0


def _installed(chosen: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        installer = Installer(Path(scratch), chosen.cache, with_uv=chosen.tool == "uv")
        said = None
        try:
            if chosen.frozen:
                lines = chosen.line or _lines_of(chosen.list)
                FrozenList(installer, lines, chosen.pytorch, chosen.note).install()
            elif chosen.line:
                said = installer.install_lines(chosen.line)
            else:
                said = installer.install("-r", chosen.list)
            if said is not None:
                raise Failed("the requirements could not be installed")
        except Failed as error:
            _say(str(error))
            return False
    return True


def _become(program: list[str]) -> None:
    try:
        os.execvp(program[0], program)  # noqa: S606 - it is what the container is for
    except OSError as error:
        raise SystemExit(f"launch-async: {program[0]} cannot be started: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
