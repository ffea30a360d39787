"""Values of resource arguments, as `docker run` reads them from its command line."""

import re
import shlex
from typing import Any

from launch_async.domain.errors import ItemError, Reason

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def invalid(said: str) -> ItemError:
    """The error for an argument that is not what it should be."""
    return ItemError(
        f"Resource argument of local-container: {said}", reason=Reason.RESOURCE_ARGS_INVALID
    )


def text(name: str, given: Any) -> str:
    """A text or a number, as text. Raises `ItemError`, as all here."""
    if isinstance(given, dict | list | bool) or given is None:
        raise invalid(f"`{name}` must be a text.")
    return str(given)


def texts(name: str, given: Any) -> list[str]:
    """One text or a list of them, as a list."""
    entries = given if isinstance(given, list) else [given]
    if any(isinstance(entry, bool | dict | list) or entry is None for entry in entries):
        raise invalid(f"`{name}` must be a text or a list of texts.")
    return [str(entry) for entry in entries]


def words(name: str, given: str) -> list[str]:
    """A command line, split as a shell splits it."""
    try:
        return shlex.split(given)
    except ValueError as error:
        raise invalid(f"`{name}` cannot be split into words: {error}.") from None


def whole(name: str, given: Any) -> int:
    """A whole number."""
    try:
        return int(str(given))
    except ValueError:
        raise invalid(f"`{name}` must be a whole number, not {given!r}.") from None


def nano_cpus(name: str, given: Any) -> int:
    """CPUs such as 1.5, in billionths."""
    try:
        return round(float(given) * 1e9)
    except (TypeError, ValueError, OverflowError):
        raise invalid(f"`{name}` must be a number of CPUs such as 1.5, not {given!r}.") from None


def size(name: str, given: Any) -> int:
    """A size such as 512m, in bytes."""
    found = _BYTES.fullmatch(str(given).strip())
    if found is None:
        raise invalid(f"`{name}` must be a size such as 512m or 2g, not {given!r}.")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def swap(name: str, given: Any) -> int:
    """A size, or -1 for no limit."""
    return -1 if str(given) == "-1" else size(name, given)


def ulimits(name: str, given: Any) -> list[dict[str, Any]]:
    """`nofile=1024` or `nofile=1024:2048`, one or several."""
    limits: list[dict[str, Any]] = []
    for entry in texts(name, given):
        found = re.fullmatch(r"([a-z]+)=(-?\d+)(?::(-?\d+))?", entry)
        if found is None:
            raise invalid(f"`{name}` must look like nofile=1024 or nofile=1024:2048: {entry!r}.")
        soft = int(found[2])
        limits.append({"Name": found[1], "Soft": soft, "Hard": int(found[3] or soft)})
    return limits


def gpus(name: str, given: Any) -> list[dict[str, Any]]:
    """`all`, a number, or `device=0,1`."""
    said = str(given).strip("\"' ")
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]]}
    key, _, value = said.partition("=")
    if said == "all" or (key, value) == ("count", "all"):
        return [{**request, "Count": -1}]
    if key == "device" and value:
        return [{**request, "DeviceIDs": value.split(",")}]
    if said.isdigit() or (key == "count" and value.isdigit()):
        return [{**request, "Count": int(value or said)}]
    raise invalid(f"`{name}` must be all, a number, or device=0,1, not {given!r}.")


def devices(name: str, given: Any) -> list[dict[str, str]]:
    """`/dev/x[:/dev/y[:rwm]]`, one or several."""
    found: list[dict[str, str]] = []
    for entry in texts(name, given):
        host, _, rest = entry.partition(":")
        inside, _, rights = rest.partition(":")
        if not host.startswith("/dev/") or not set(rights) <= set("rwm"):
            raise invalid(f"`{name}` must look like /dev/x[:/dev/y[:rwm]], not {entry!r}.")
        found.append(
            {
                "PathOnHost": host,
                "PathInContainer": inside or host,
                "CgroupPermissions": rights or "rwm",
            }
        )
    return found
