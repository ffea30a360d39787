"""Brings a database's schema to its newest version, with Alembic's scripts beside this file."""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config

ONE_AT_A_TIME = threading.Lock()  # alembic.context and alembic.op are one per process
SCRIPTS = Path(__file__).parent / "migrations"


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the database at `url`. Blocks, and runs its own event loop: call it in a thread."""
    with ONE_AT_A_TIME:
        command.upgrade(alembic_config(url), revision)


def alembic_config(url: str) -> Config:
    """Return Alembic's configuration for one database; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config
