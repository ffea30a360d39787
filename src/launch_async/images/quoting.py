"""The only way by which a value gets into an instruction of a Dockerfile.

A Dockerfile has one instruction per line, so a value that could end its line could add one. What
is written here holds neither a line's end nor anything that a builder would expand. Images are
checked against the grammar of references, which has neither (`settings.checked_reference`).
"""

import json
import re
from collections.abc import Sequence

from launch_async.domain.errors import ItemError, Reason, Stage

MAX_CHARACTERS = 60_000
"""The engine's own builder refuses lines beyond 65,535 bytes."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def exec_form(words: Sequence[str]) -> str:
    """Words as the JSON array that ENTRYPOINT, CMD and RUN take: no shell, nothing is expanded.

    A word may have any character that a program's argument may have, line ends too: JSON keeps
    them on one line.

    Raises:
        ItemError: there is no word, one holds a zero or no Unicode, or they are too long.
    """
    text = json.dumps(list(words))  # ASCII: no character of Unicode that somebody takes for an end
    if not words or any(re.search(r"[\x00\ud800-\udfff]", word) for word in words):
        raise _refused("The entry point is empty, or holds a character that no program can get.")
    if len(text) > MAX_CHARACTERS:
        raise _refused(f"The entry point is longer than {MAX_CHARACTERS} characters.")
    return text


def assignment(name: str, value: str) -> str:
    """`NAME="value"` for ENV, ARG and LABEL; the value arrives as it is.

    Raises:
        ItemError: the name is none, or the value holds control characters.
    """
    if _NAME.fullmatch(name) is None or _CONTROL.search(value) or len(value) > MAX_CHARACTERS:
        raise _refused(f"{name!r} cannot be set in a Dockerfile: control characters, or too long.")
    quoted = re.sub(r'([\\"$])', r"\\\1", value)
    return f'{name}="{quoted}"'


def user_name(name: str) -> str:
    """A name that `useradd` takes.

    Raises:
        ItemError: it is none.
    """
    if _USER.fullmatch(name) is None:
        raise _refused(f"{name!r} is no user name: a-z, 0-9, _ and -, at most 32 characters.")
    return name


def _refused(text: str) -> ItemError:
    return ItemError(text, reason=Reason.JOB_INVALID, stage=Stage.BUILD)
