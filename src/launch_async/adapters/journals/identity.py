"""The agent's lasting identity: a file in its state folder, held by one process of this machine."""

import errno
import socket
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from launch_async.domain.errors import AgentUnfit
from launch_async.kit.files import write_atomically


@contextmanager
def held_identity(state_dir: Path) -> Generator[str, None, None]:
    """What stays the same over all lives with this state folder, for as long as the block lasts.

    The journal's lock guards the folder; this guards a copy of it as well, since two agents with
    one identity would take each other's runs for their own. The hold is a name in the kernel (an
    abstract socket of this network namespace): it ends with the process, however that ends.

    Raises:
        AgentUnfit: the file is empty, or another agent of this machine has the same identity.
    """
    path = state_dir / "identity"
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex.encode())
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
