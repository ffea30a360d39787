"""Runs the programs that build: their words to the log and the steps, their end with ours."""

import os
import signal
from collections.abc import Mapping, Sequence
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
from anyio.abc import Process

from launch_async.adapters.builders.lines import shown
from launch_async.adapters.builders.output import Output
from launch_async.adapters.builders.steps import PlainSteps
from launch_async.domain.errors import Unavailable
from launch_async.kit.procs import signal_group

_ASK_SECONDS = 20.0
_TERM_SECONDS = 0.4
"""Until SIGKILL: a cancelled build must be gone within a second."""
_PASSED_ON = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"http_proxy", "https_proxy", "no_proxy", "all_proxy"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}
    | {"DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "BUILDX_BUILDER", "BUILDX_CONFIG"}
)


class NotInstalled(Unavailable):
    """There is no such program here."""


def program_environment(more: Mapping[str, str]) -> dict[str, str]:
    """What a program may know of the agent's environment: no keys, no passwords."""
    own = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    return own | dict(more)


async def run_build(
    argv: Sequence[str], *, environment: Mapping[str, str], output: Output, steps: PlainSteps
) -> int:
    """The program's exit code; when this is left early its whole process group is ended.

    Raises:
        NotInstalled: there is no such program.
        Unavailable: it cannot be started.
    """
    process = await _start(argv, environment)
    try:
        assert process.stdout is not None  # noqa: S101 - asked for below
        async for piece in process.stdout:
            await output.write(piece)
            steps.feed(piece)
        return await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def ask(argv: Sequence[str], *, environment: Mapping[str, str]) -> None:
    """Run a program that should say quickly whether all is well.

    Raises:
        NotInstalled: there is no such program.
        Unavailable: it cannot be started, or says that all is not well.
    """
    process = await _start(argv, environment)
    said = bytearray()
    try:
        with anyio.fail_after(_ASK_SECONDS):
            assert process.stdout is not None  # noqa: S101 - asked for below
            async for piece in process.stdout:
                said = (said + piece)[-4096:]
            code = await process.wait()
    except TimeoutError as error:
        msg = f"{argv[0]} did not answer within {_ASK_SECONDS:.0f} s."
        raise Unavailable(msg) from error
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    if code != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise Unavailable(shown(lines[-1]) if lines else f"{argv[0]} ended with {code}.")


async def _start(argv: Sequence[str], environment: Mapping[str, str]) -> Process:
    try:
        return await anyio.open_process(
            argv,
            env=environment,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        msg = f"{argv[0]} is not installed where the agent runs, or not in its PATH: install it."
        raise NotInstalled(msg) from error
    except OSError as error:
        raise Unavailable(f"{argv[0]} cannot be started: {error.strerror}.") from error


async def _end(process: Process) -> None:
    if process.returncode is None:
        signal_group(process.pid, signal.SIGTERM)
        with anyio.move_on_after(_TERM_SECONDS):
            await process.wait()
        signal_group(process.pid, signal.SIGKILL)  # its children too, which may have stayed
    await process.aclose()
