"""Runs `python -m venv` and pip as processes that end when we do, and reads what they said."""

import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio

from launch_async.kit.tail import last_lines

SHOWN_LINES = 15
_READ_LINES = 200
_PASSED_ON = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"}
    | {"http_proxy", "https_proxy", "no_proxy", "all_proxy"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}
    | {"SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO"}
    | {"CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "LD_LIBRARY_PATH", "CUDA_HOME"}
)
_ELSEWHERE = frozenset({"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON"})
"""The agent's settings that would make pip install somewhere else than in the environment."""
_PASSWORD = re.compile(r"(?<=//)[^/@\s]+@")
_NO_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Network is unreachable"
    r"|Failed to establish a new connection|NewConnectionError|ConnectTimeoutError|ProxyError"
    r"|No route to host"
)


class ToolFailed(Exception):
    """The program ended with another code than 0."""

    def __init__(self, said: Sequence[str]) -> None:
        super().__init__("\n".join(said[-SHOWN_LINES:]))
        self.said = tuple(said)
        """Its last lines, without passwords."""

    @property
    def no_network(self) -> bool:
        """Whether it could not reach its package index."""
        return any(_NO_NETWORK.search(line) for line in self.said)


def tool_environment() -> dict[str, str]:
    """The agent's variables that pip needs: the way to the index, and the user's pip settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or (name.startswith("PIP_") and name not in _ELSEWHERE)
    } | {"PYTHONUNBUFFERED": "1", "PIP_NO_INPUT": "1"}


async def run_tool(argv: Sequence[str], *, cwd: Path, output: Path) -> None:
    """Run a program to its end, its words appended to `output`; cancelled, its group is killed.

    Raises:
        ToolFailed: it ended with another code than 0.
    """
    with output.open("ab") as words:
        async with await anyio.open_process(
            argv,
            cwd=cwd,
            env=tool_environment(),
            stdin=None,
            stdout=words,
            stderr=words,
            start_new_session=True,
        ) as process:
            try:
                code = await process.wait()
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # pip's own children as well
                raise
    if code != 0:
        lines = last_lines(output, lines=_READ_LINES)
        raise ToolFailed([_PASSWORD.sub("***@", line) for line in lines])
