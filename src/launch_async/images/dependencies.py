"""What a job installs, in a generated image or at its start, and what the log says it could not.

```
.launch-async/installer.py          installs a list, within the image
.launch-async/first/<list>          what an index serves: a layer that changes only with the lists
.launch-async/whole/<list>          the lists as they are, where they name paths within the code
```
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import msgspec

from launch_async.domain.requirements import Requirements, find_requirements, without_local
from launch_async.images.places import invalid

FOLDER = ".launch-async"
"""In a build context; the job's own files of this name are left out."""
INSTALLER = "installer.py"
MAX_MISSING = 200
MAX_START_CHARACTERS = 200_000
"""Of lines that are given to the start of a run: a program gets about two million in all."""

_MISSING = re.compile(
    r"launch-async: could not install: (a URL or path|[A-Za-z0-9][\w.+!=\[\],-]{0,200})"
)


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """Lists to install; their paths are within `FOLDER`."""

    first: str | None = None
    """List to install before the code is there; None: there is nothing in it."""
    whole: str | None = None
    """List to install with the code as working folder; None: it names nothing in there."""
    frozen: bool = False
    extra_files: Mapping[str, str] = {}
    """For the build context."""
    warnings: tuple[str, ...] = ()


def dependencies_of(code: Path) -> Dependencies:
    """What the code in this folder needs; blocks, for a worker thread.

    The lists are copied as text: whatever their names and links are, no instruction names them,
    and a pattern of `.dockerignore` cannot leave them out.

    Raises:
        ItemError: a list cannot be read, or refers to one that is not there.
    """
    needs = _needs_of(code)
    warnings = _warnings(needs)
    if not needs.lines:
        return Dependencies(warnings=warnings)
    name = needs.file.name if needs.file else "requirements.txt"
    texts = needs.texts or {name: "".join(f"{line}\n" for line in needs.lines)}
    extra = {f"{FOLDER}/{INSTALLER}": _installer()}
    if needs.frozen:
        extra[f"{FOLDER}/first/{name}"] = "".join(f"{line}\n" for line in needs.lines)
        return Dependencies(
            first=f"first/{name}", frozen=True, extra_files=extra, warnings=warnings
        )
    served = {path: without_local(text) for path, text in texts.items()}
    extra |= {f"{FOLDER}/first/{path}": text for path, text in served.items()}
    if needs.local:
        extra |= {f"{FOLDER}/whole/{path}": text for path, text in texts.items()}
    return Dependencies(
        # What the code's own folder serves must not be asked of an index.
        first=f"first/{name}" if any(served.values()) and not needs.any_local else None,
        whole=f"whole/{name}" if needs.local else None,
        extra_files=extra,
        warnings=warnings,
    )


def install_at_start(code: Path) -> tuple[str, ...]:
    """Words before those of a program that install what the code needs in the folder where it is,
    and then become the program; none, if it needs nothing. Blocks.

    Raises:
        ItemError: as `dependencies_of`; a list is too long.
    """
    needs = _needs_of(code)
    if not needs.lines:
        return ()
    words = ["python3", "-I", "-c", _installer()]  # isolated: the code is no module of its own
    if needs.frozen or needs.file is None:
        if sum(len(line) for line in needs.lines) > MAX_START_CHARACTERS:
            raise invalid(
                "The job's list of requirements is too long to be installed when its run starts:"
                " shorten it, or use an agent that builds images."
            )
        words += [f"--line={line}" for line in needs.lines]
    else:
        words.append(needs.file.name)
    return (*words, *(["--frozen"] if needs.frozen else []), "--then")


def missing_packages(log: str) -> tuple[str, ...]:
    """What the build of a frozen list had to do without, from all that the builder printed."""
    return tuple(dict.fromkeys(_MISSING.findall(log)))[:MAX_MISSING]


def _needs_of(code: Path) -> Requirements:
    needs = find_requirements(code)
    if needs.missing:
        raise invalid(
            f"The job's requirements refer to {needs.missing[0]}, which its code does not hold:"
            " add the file, or build with a Dockerfile of the job's own."
        )
    return needs


def _installer() -> str:
    return files("launch_async.images").joinpath(INSTALLER).read_text(encoding="utf-8")


def _warnings(needs: Requirements) -> tuple[str, ...]:
    if not needs.lines:
        text = (
            "the job names no requirements (requirements.txt, pyproject.toml with"
            " [project].dependencies or requirements.frozen.txt): its image has no packages"
        )
        return (text,)
    if not needs.local and not any("wandb" in line.lower() for line in needs.lines):
        return ("the job's requirements do not name wandb, so its run may never show",)
    return ()
