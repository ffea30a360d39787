"""How a run begins that fetches its code itself: what it installs is known once the code is there.

```
fetch   code --> .launch-async/start.py, with the words that install what the code needs
run     python3 start.py PROGRAM...: installs, and becomes the program
```
"""

from pathlib import Path

from launch_async.images.dependencies import FOLDER, install_at_start
from launch_async.ports.runner import CODE_DIRECTORY

START = f"{FOLDER}/start.py"
"""Within the code."""

_THEN = "--then"
_PROGRAM = """\
import os, subprocess, sys

CODE = {code!r}
INSTALLS = {words!r}

program = sys.argv[1:]
if INSTALLS:
    failed = subprocess.call(INSTALLS, cwd=CODE, stdout=2)
    if failed:
        sys.exit(failed)
try:
    os.execvp(program[0], program)
except OSError as error:
    sys.exit(f"launch-async: {{program[0]}} cannot be started: {{error}}")
"""


def starting(program: tuple[str, ...]) -> tuple[str, ...]:
    """The entry point of a run that installs what its code needs and then becomes the program."""
    return ("python3", "-I", f"{CODE_DIRECTORY}/{START}", *program)


def write_start(code: Path) -> None:
    """Beside the code in this folder, what `starting` names; blocks.

    Raises:
        ItemError: the requirements cannot be read.
        OSError: there is no room.
    """
    words = install_at_start(code)
    if words and words[-1] == _THEN:
        words = words[:-1]
    path = code / START
    path.parent.mkdir(exist_ok=True)
    path.write_text(_PROGRAM.format(code=str(code), words=list(words)), encoding="utf-8")
