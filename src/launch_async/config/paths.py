"""Paths as people write them."""

from pathlib import Path

from launch_async.domain.errors import ConfigError


def home_path(text: str, name: str) -> Path:
    """The path with `~` resolved; `name` is the setting that it is from.

    Raises:
        ConfigError: it is none, or begins with a home folder that is not there.
    """
    if not text:
        raise ConfigError(f"{name} is empty; give a path")
    if "\0" in text:
        raise ConfigError(f"{name} holds a null byte and is no path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        home = Path(text).parts[0]
        if home == "~":
            raise ConfigError(
                f"{name} is in the home folder, and there is none; set HOME"
            ) from error
        raise ConfigError(f"{name} begins with {home}, and there is no such home folder") from error


def home_dir() -> Path:
    """The user's home folder.

    Raises:
        ConfigError: there is none.
    """
    return home_path("~", "the configuration")
