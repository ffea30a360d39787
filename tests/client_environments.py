"""Where scripts/client-environments keeps the versions of the wandb client that tests run."""

import os
from pathlib import Path

VERSIONS = ("0.19", "0.23", "0.28", "0.31")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
ENVIRONMENTS = CACHE / "launch-async-ci" / "clients"
REMEDY = "install it with scripts/client-environments"


def is_installed(version: str) -> bool:
    """Tell whether a version's environment is complete."""
    return (ENVIRONMENTS / version / "recipe").exists()


def python_of(version: str) -> Path:
    """Return the interpreter that has a version."""
    return ENVIRONMENTS / version / "bin" / "python"


def package_of(version: str) -> Path:
    """Return the folder of a version's package."""
    (package,) = (ENVIRONMENTS / version / "lib").glob("python3*/site-packages/wandb")
    return package
