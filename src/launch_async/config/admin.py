"""Where the key of the admin API and an agent's admin token come from: a file, or a variable.

Never an argument: those are for everybody on the machine to see.
"""

from collections.abc import Mapping
from pathlib import Path

from launch_async.config.paths import home_path
from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret

ADMIN_KEY_VARIABLE = "LAUNCH_ASYNC_ADMIN_KEY"
AGENT_VARIABLE = "LAUNCH_ASYNC_ADMIN_TOKEN"
MIN_KEY_LENGTH = 40
MAX_FILE_BYTES = 4096


def find_admin_key(path: Path | None, environ: Mapping[str, str]) -> Secret[str] | None:
    """The key in a file, else in the environment; None when neither is given.

    Raises:
        ConfigError: the file cannot be read, or what is there is no key.
    """
    return _found(path, environ, ADMIN_KEY_VARIABLE, "admin key")


def find_agent_token(path: Path | None, environ: Mapping[str, str]) -> Secret[str] | None:
    """As `find_admin_key`, what an agent's admin endpoint asks of who changes something."""
    return _found(path, environ, AGENT_VARIABLE, "admin token")


def _found(
    path: Path | None, environ: Mapping[str, str], variable: str, thing: str
) -> Secret[str] | None:
    if path is not None:
        return _checked(_read(path, thing), f"the {thing} in {path}")
    if variable not in environ:
        return None
    return _checked(environ[variable].strip(), f"the {thing} in {variable}")


def _read(path: Path, thing: str) -> str:
    try:
        with home_path(str(path), f"the {thing} file").open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode().strip()
    except OSError as error:
        msg = f"the {thing} file {path} cannot be read ({error.strerror})"
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"the {thing} file {path} holds no text"
        raise ConfigError(msg) from error
    if len(content) > MAX_FILE_BYTES:
        msg = f"the {thing} file {path} is longer than any key ({MAX_FILE_BYTES} bytes)"
        raise ConfigError(msg)
    return text


def _checked(key: str, what: str) -> Secret[str]:
    plain = key.isascii() and key.isprintable() and " " not in key
    if not plain or len(key) < MIN_KEY_LENGTH:
        msg = (
            f"{what} is not one: it takes {MIN_KEY_LENGTH} or more plain "
            "characters without blanks, such as those of `openssl rand -hex 32`"
        )
        raise ConfigError(msg)
    return Secret(key)
