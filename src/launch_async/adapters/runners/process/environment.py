"""What a job on this machine sees as its environment: what is given, and nothing else."""

import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from launch_async.domain.environment import with_asked
from launch_async.domain.errors import ItemError, Reason
from launch_async.ports.runner import CodeWork, LaunchOrder

STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ALLOWED_KEYS = ("env",)

BASICS = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PASSED_ON = (*BASICS, *_NETWORK, *(name.lower() for name in _NETWORK), *_CERTIFICATES)
"""The agent's own variables that a job gets: who and where it is, and the way to the network."""


def job_environment(
    order: LaunchOrder, work: CodeWork, *, passed_on: Iterable[str] = PASSED_ON
) -> dict[str, str]:
    """The job's whole environment, with its secrets.

    Later ones win: the machine's basics, the queue's or item's `env`, the order's, secrets.

    Raises:
        ItemError: `resource_args` has something that this backend does not understand.
    """
    basics = {name: os.environ[name] for name in passed_on if name in os.environ}
    environment = {
        "LANG": "C.UTF-8",
        **basics,
        "PYTHONUNBUFFERED": "1",
        "VIRTUAL_ENV": str(work.bin_directory.parent),
        "WANDB_DIR": str(work.directory),
        **with_asked(order.environment, _asked_for(order.resource_args)),
        **{name: secret.reveal() for name, secret in order.secrets.items()},
    }
    environment["PATH"] = f"{work.bin_directory}:{environment.get('PATH', STANDARD_PATH)}"
    return environment


def _asked_for(resource_args: Mapping[str, Any]) -> dict[str, str]:
    for key in resource_args:
        if key not in ALLOWED_KEYS:
            near = difflib.get_close_matches(key, ALLOWED_KEYS, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ItemError(
                f"local-process does not know the resource argument `{key}`.{hint}"
                f" Allowed: {', '.join(ALLOWED_KEYS)}.",
                reason=Reason.RESOURCE_ARGS_INVALID,
            )
    given = resource_args.get("env", {})
    if isinstance(given, dict):
        return {str(name): _text(name, value) for name, value in given.items()}
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list):
        raise _wrong_env()
    pairs = [entry.partition("=") for entry in given if isinstance(entry, str)]
    if len(pairs) < len(given) or any(not equals for _, equals, _ in pairs):
        raise _wrong_env()
    return {name: value for name, _, value in pairs}


def _text(name: object, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ItemError(
            f"The resource argument `env` has no text for `{name}`: give a string or a number.",
            reason=Reason.RESOURCE_ARGS_INVALID,
        )
    return str(value)


def _wrong_env() -> ItemError:
    return ItemError(
        "The resource argument `env` must be a mapping, or a list of `NAME=value`."
        " The agent's own variables are not shared with jobs, so a bare NAME is refused.",
        reason=Reason.RESOURCE_ARGS_INVALID,
    )
