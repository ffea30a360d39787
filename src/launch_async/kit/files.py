"""Small files that must be whole or not there at all."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write the file for its owner only; after a crash it has the old content or the new."""
    aside = path.with_name(f"{path.name}.new")
    descriptor = os.open(aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
