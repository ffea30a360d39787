"""Programs that log in to clusters: `aws eks get-token`, `gke-gcloud-auth-plugin`, kubelogin.

[source: kubernetes.io, client-authentication.v1]
"""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
import msgspec
from anyio.abc import ByteReceiveStream, Process

from launch_async.domain.errors import ConfigError, Unavailable
from launch_async.domain.secret import Secret
from launch_async.kit.clock import unix_now
from launch_async.kit.tail import ByteTail

TIMEOUT_SECONDS = 30.0
MAX_OUTPUT_BYTES = 1 << 20
MAX_WORDS = 300
_LAST_WORDS_SECONDS = 1.0
"""What the program started may hold its pipes, after it has ended."""


class PlugIn(msgspec.Struct, frozen=True, kw_only=True):
    """A program as the kubeconfig names it."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    api_version: str
    install_hint: str
    cluster: Mapping[str, Any] | None
    """What it is told of the cluster, if it wants to be."""
    context: str
    """Whose login it is, for error texts."""


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """What a program gave: a token, a certificate with its key, or both."""

    token: Secret[str] | None
    certificate: bytes | None
    key: Secret[bytes] | None
    lifetime_seconds: float | None
    """None: until it is refused."""


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _Credential(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    status: _Status


def require(plug_in: PlugIn, environ: Mapping[str, str]) -> None:
    """Raises ConfigError when there is no such program here."""
    if shutil.which(plug_in.command, path=_environment(plug_in, environ).get("PATH")) is None:
        raise _missing(plug_in)


async def ask(
    plug_in: PlugIn, environ: Mapping[str, str], *, timeout_seconds: float = TIMEOUT_SECONDS
) -> Issued:
    """Run the program to its end; it never outlives the call.

    Raises:
        ConfigError: it cannot be run.
        Unavailable: it failed, hung, or gave no login.
    """
    try:
        with anyio.fail_after(timeout_seconds):
            code, output, words = await _run(plug_in, _environment(plug_in, environ))
    except TimeoutError:
        raise _failed(plug_in, f"did not end in {timeout_seconds:.0f} s") from None
    except (FileNotFoundError, PermissionError):
        raise _missing(plug_in) from None
    except OSError as error:
        raise _failed(plug_in, f"cannot be run ({error.strerror})") from None
    if code != 0:
        said = f": {words[-1][:MAX_WORDS]}" if words else ""
        raise _failed(plug_in, f"ended with exit code {code}{said}")
    try:
        answer = msgspec.json.decode(output, type=_Credential)
    except msgspec.MsgspecError:
        answer = None  # the decoder's error may hold a part of the token
    if answer is None or answer.kind != "ExecCredential":
        raise _failed(plug_in, "printed no ExecCredential")
    if answer.api_version != plug_in.api_version:
        why = f"speaks {answer.api_version}, and the kubeconfig says {plug_in.api_version}"
        raise _failed(plug_in, why)
    return _issued(plug_in, answer.status)


def _issued(plug_in: PlugIn, status: _Status) -> Issued:
    certificate, key = status.client_certificate_data, status.client_key_data
    if not status.token and not (certificate and key):
        raise _failed(plug_in, "gave neither a token nor a certificate with its key")
    ends = status.expiration_timestamp
    return Issued(
        token=Secret(status.token) if status.token else None,
        certificate=certificate.encode() if certificate and key else None,
        key=Secret(key.encode()) if certificate and key else None,
        lifetime_seconds=None if ends is None else ends.timestamp() - unix_now(),
    )


def _environment(plug_in: PlugIn, environ: Mapping[str, str]) -> dict[str, str]:
    spec: dict[str, Any] = {"interactive": False}
    if plug_in.cluster is not None:
        spec["cluster"] = plug_in.cluster
    request = {"apiVersion": plug_in.api_version, "kind": "ExecCredential", "spec": spec}
    told = msgspec.json.encode(request).decode()
    return {**environ, **plug_in.env, "KUBERNETES_EXEC_INFO": told}


async def _run(plug_in: PlugIn, environment: Mapping[str, str]) -> tuple[int, bytes, Sequence[str]]:
    """Exit code, output and last words."""
    process = await anyio.open_process(
        [plug_in.command, *plug_in.args],
        env=environment,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        return await _heard(plug_in, process)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own children as well
        raise
    finally:
        await process.aclose()


async def _heard(plug_in: PlugIn, process: Process) -> tuple[int, bytes, Sequence[str]]:
    output, words = bytearray(), ByteTail()
    async with anyio.create_task_group() as readers:
        ended = [anyio.Event(), anyio.Event()]
        readers.start_soon(_read, process.stdout, output.extend, ended[0], name="plug-in answers")
        readers.start_soon(_read, process.stderr, words.feed, ended[1], name="plug-in says")
        await process.wait()
        with anyio.move_on_after(_LAST_WORDS_SECONDS):
            for end in ended:
                await end.wait()
        readers.cancel_scope.cancel()
    if len(output) > MAX_OUTPUT_BYTES:
        raise _failed(plug_in, "prints without an end")
    return process.returncode or 0, bytes(output), words.lines(1)


async def _read(stream: ByteReceiveStream | None, feed: Any, ended: anyio.Event) -> None:
    size = 0
    if stream is not None:
        async for piece in stream:
            size += len(piece)
            if size <= 2 * MAX_OUTPUT_BYTES:
                feed(piece)
    ended.set()


def _missing(plug_in: PlugIn) -> ConfigError:
    hint = f" {plug_in.install_hint.strip()}" if plug_in.install_hint else ""
    return ConfigError(
        f"context {plug_in.context} logs in with the program {plug_in.command}, which is not on the"
        f" agent's PATH: install it where the agent runs.{hint}"
    )


def _failed(plug_in: PlugIn, why: str) -> Unavailable:
    return Unavailable(
        f"the login program {plug_in.command} of context {plug_in.context} {why};"
        f" try `kubectl --context {plug_in.context} version` as the agent's user"
    )
