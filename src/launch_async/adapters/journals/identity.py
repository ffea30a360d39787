"""The agent's lasting identity: a file in its state folder, held by one process of this machine."""

import errno
import socket
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from launch_async.domain.errors import AgentUnfit
from launch_async.kit.files import write_atomically

_FILE = "identity"


def new_identity() -> str:
    """One that no other agent has."""
    return uuid.uuid4().hex


def kept_identity(state_dir: Path) -> str:
    """What earlier lives with this folder were; "" if there were none."""
    try:
        return (state_dir / _FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def keep_identity(state_dir: Path, identity: str) -> None:
    """Let all lives with this folder be this agent."""
    write_atomically(state_dir / _FILE, identity.encode())


@contextmanager
def held_identity(state_dir: Path) -> Generator[str, None, None]:
    """What stays the same over all lives with this state folder, for as long as the block lasts.

    The journal's lock guards the folder; this guards a copy of it as well, since two agents with
    one identity would take each other's runs for their own. The hold is a name in the kernel (an
    abstract socket of this network namespace): it ends with the process, however that ends.

    Raises:
        AgentUnfit: the file is empty, or another agent of this machine has the same identity.
    """
    path = state_dir / _FILE
    if not path.exists():
        keep_identity(state_dir, new_identity())
    identity = path.read_text(encoding="utf-8").strip()
    if not identity:
        raise AgentUnfit(f"{path} is empty; restore it, or delete it to start as a new agent")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hold:
        try:
            hold.bind(f"\0launch-async-agent/{identity}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise AgentUnfit(
                f"another agent on this machine has the identity in {path}: its state folder was "
                f"copied. Delete identity and journal.sqlite from the copy, so that it starts as "
                "an agent of its own"
            ) from None
        yield identity
