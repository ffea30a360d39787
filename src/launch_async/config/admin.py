"""Where the key of the admin API comes from: a file, or a variable. Never an argument."""

from collections.abc import Mapping
from pathlib import Path

from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret

ADMIN_KEY_VARIABLE = "LAUNCH_ASYNC_ADMIN_KEY"
MIN_KEY_LENGTH = 40


def find_admin_key(path: Path | None, environ: Mapping[str, str]) -> Secret[str] | None:
    """The key in a file, else in the environment; None when neither is given.

    Raises:
        ConfigError: the file cannot be read, or what is there is no key.
    """
    if path is not None:
        try:
            return _checked(path.read_text().strip(), str(path))
        except OSError as error:
            msg = f"the admin key file {path} cannot be read ({error.strerror})"
            raise ConfigError(msg) from error
        except UnicodeDecodeError as error:
            msg = f"the admin key file {path} holds no text"
            raise ConfigError(msg) from error
    if ADMIN_KEY_VARIABLE not in environ:
        return None
    return _checked(environ[ADMIN_KEY_VARIABLE].strip(), ADMIN_KEY_VARIABLE)


def _checked(key: str, where: str) -> Secret[str]:
    plain = key.isascii() and key.isprintable() and " " not in key
    if not plain or len(key) < MIN_KEY_LENGTH:
        msg = (
            f"the admin key in {where} is not one: it takes {MIN_KEY_LENGTH} or more plain "
            "characters without blanks, such as those of `openssl rand -hex 32`"
        )
        raise ConfigError(msg)
    return Secret(key)
