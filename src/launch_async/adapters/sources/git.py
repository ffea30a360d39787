"""Code of git jobs: one commit of a remote, in the end without git's own folders."""

import os
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import msgspec
import structlog

from launch_async.adapters.sources.git_checkout import Checkout, drop_repositories
from launch_async.adapters.sources.git_faults import fault_of
from launch_async.adapters.sources.git_process import Git, GitFailed
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.git import GitRemote, GitSettings, checked_ref, is_commit, masked
from launch_async.domain.job import GitSource

FETCHES_AT_ONCE = 16
FETCHES_OF_ONE_SERVER = 4
"""One that hangs must leave places for the others."""
PAUSE_SECONDS = 1.0
LOOK_SECONDS = 60.0
"""How long a server may take to say where its branches are."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class GitCode:
    """Fetches what git jobs name."""

    def __init__(
        self,
        settings: GitSettings | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """`pause_seconds` is the first pause before a failed network is tried again."""
        self._settings = settings or GitSettings()
        self._environ = environ
        self._pause_seconds = pause_seconds
        self._places = anyio.CapacityLimiter(FETCHES_AT_ONCE)
        self._servers: WeakValueDictionary[str, anyio.CapacityLimiter] = WeakValueDictionary()

    async def pin(self, source: GitSource) -> GitSource:
        """The source with its commit's whole hash; a hash's beginning stays one.

        Raises:
            ItemError: the remote or the name is refused, or the remote does not have it.
            Unavailable: the remote does not answer.
        """
        checked_ref(source.commit)
        self._remote(source)
        if is_commit(source.commit):
            return source
        with tempfile.TemporaryDirectory(prefix="launch-git-") as folder:
            async with self._checkout(
                source, Path(folder), within_seconds=LOOK_SECONDS
            ) as checkout:
                commit = await checkout.look_up(source.commit)
        return msgspec.structs.replace(source, commit=commit)

    async def fetch(self, source: GitSource, into: Path, *, patch: Path | None = None) -> None:
        """Put the commit's files into the empty folder, changed by the patch.

        Raises:
            ItemError: as `pin`; it takes too long; the patch does not fit.
            Unavailable: as `pin`.
        """
        source = await self.pin(source)
        seconds = self._settings.timeout_seconds
        async with self._checkout(source, into, within_seconds=seconds) as checkout:
            await checkout.fetch(source.commit)
            if patch is not None:
                await checkout.apply(patch, source.commit)
            await anyio.to_thread.run_sync(drop_repositories, into)
        log.info("code is fetched", remote=masked(source.remote), commit=source.commit)

    @asynccontextmanager
    async def _checkout(
        self, source: GitSource, folder: Path, *, within_seconds: float
    ) -> AsyncGenerator[Checkout, None]:
        """Bounds the block in number and time, and says in our words why git failed in it."""
        remote = self._remote(source)
        login = source.login or remote.login
        seconds = min(within_seconds, self._settings.timeout_seconds)
        server = self._servers.setdefault(remote.host, anyio.CapacityLimiter(FETCHES_OF_ONE_SERVER))
        async with server, self._places:
            made = partial(Git, folder, remote, self._settings, environ=self._environ, login=login)
            git = await anyio.to_thread.run_sync(made)  # it reads the passwords' files
            try:
                with anyio.fail_after(seconds):
                    yield Checkout(git, remote.url, pause_seconds=self._pause_seconds)
            except TimeoutError as error:
                msg = (
                    f"{remote.url} took longer than {seconds:g} s; try again, or set a longer"
                    " `agent.git.timeout_seconds`"
                )
                raise ItemError(msg, reason=Reason.SOURCE_UNAVAILABLE) from error
            except GitFailed as error:
                wanted = source.commit
                raise fault_of(error, remote=remote.url, wanted=wanted, folder=folder) from error

    def _remote(self, source: GitSource) -> GitRemote:
        return GitRemote.parse(source.remote, allow_http=self._settings.allow_http)
