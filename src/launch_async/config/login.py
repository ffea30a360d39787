"""Where the address and the key of the API come from: the same places as for the wandb client.

Address: `WANDB_BASE_URL`, then `base_url` in `./wandb/settings` and in the user's settings file
(`~/.config/wandb/settings`, or under `WANDB_CONFIG_DIR`). Key: `WANDB_API_KEY`, then the netrc file
(`NETRC`, `~/.netrc`, `~/_netrc`) under the address' host. [source: wandb 0.31, wbauth, settings]
"""

import configparser
import netrc
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from launch_async.config.paths import home_path
from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret

DEFAULT_BASE_URL = "https://api.wandb.ai"
MIN_KEY_LENGTH = 40


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the API."""

    base_url: str
    """Without a trailing slash."""
    api_key: Secret[str]


def find_base_url(environ: Mapping[str, str], *, home: Path, working_dir: Path) -> str:
    """The API's address, without a trailing slash.

    Raises:
        ConfigError: it is not an http or https address.
    """
    named = environ.get("WANDB_CONFIG_DIR")
    config_dir = home_path(named, "WANDB_CONFIG_DIR") if named else home / ".config" / "wandb"
    settings = _settings([config_dir / "settings", working_dir / "wandb" / "settings"])
    url = environ.get("WANDB_BASE_URL") or settings.get("base_url") or DEFAULT_BASE_URL
    if is_address(url):
        return url.rstrip("/")
    # Not shown: it may hold a password.
    msg = "WANDB_BASE_URL (or base_url in wandb's settings) must look like http://HOST:PORT/PATH"
    raise ConfigError(f"{msg}, without user, password or query")


def find_login(environ: Mapping[str, str], *, home: Path, working_dir: Path) -> Login:
    """Address and key.

    Raises:
        ConfigError: no key was found, or it is not one; the text says where it was looked for.
    """
    base_url = find_base_url(environ, home=home, working_dir=working_dir)
    given = environ.get(
        "WANDB_API_KEY", ""
    ).strip()  # a Secret made of a file ends with its newline
    key = given or _netrc_key(environ, home=home, base_url=base_url)
    if not key:
        msg = f"no API key for {base_url}: set WANDB_API_KEY or run `wandb login --host {base_url}`"
        raise ConfigError(msg)
    plain = key.isascii() and key.isprintable() and " " not in key
    if not plain or len(key.removeprefix("local-")) < MIN_KEY_LENGTH:
        msg = f"the API key for {base_url} is not one: keys have 40 or more characters"
        raise ConfigError(msg)
    return Login(base_url=base_url, api_key=Secret(key))


def is_address(url: str) -> bool:
    """Whether this is an http or https address without user, password or query."""
    try:
        parts = urlsplit(url)
        port = parts.port  # looks at it only now
    except ValueError:
        return False
    extras = "@" in parts.netloc or parts.query or parts.fragment or not url.isprintable()
    plain = parts.scheme in {"http", "https"} and parts.hostname and " " not in url
    return bool(plain and not extras and port != 0)


def _settings(paths: list[Path]) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    for path in paths:
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{_where(path, error)} cannot be read as wandb's settings"
            ) from error
    return dict(parser["default"]) if parser.has_section("default") else {}


def _netrc_key(environ: Mapping[str, str], *, home: Path, base_url: str) -> str | None:
    named = environ.get("NETRC")
    paths = [home_path(named, "NETRC")] if named else [home / ".netrc", home / "_netrc"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    try:
        entry = netrc.netrc(path).authenticators(urlsplit(base_url).netloc)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except (netrc.NetrcParseError, UnicodeDecodeError) as error:
        msg = f"{_where(path, error)} cannot be read: it must be `machine HOST login … password …`"
        raise ConfigError(msg) from error
    return entry[2] if entry else None


def _where(path: Path, error: Exception) -> str:
    """File and line; what is in the line is not shown, since it may be a key."""
    line = getattr(error, "lineno", None)
    for number, _ in getattr(error, "errors", ()):
        line = line or number
    return f"{path}:{line}" if line else str(path)
