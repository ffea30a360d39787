"""All objects of one kind that a selector names, kept as the API server has them.

```
list, page by page --> watch from there --> events, bookmarks: where we are
  ^                      ^   |
  |                      |   +-- it ends, breaks off, 429, 5xx --> from where we were, after a pause
  |                      +-------------------------------------------+
  +--- we are too old (410), nothing comes, lines that are no events
```

What a new list lacks was deleted meanwhile. Nothing but a cancellation ends it.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, aclosing
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel
import msgspec
import structlog

from launch_async.adapters.runners.kubernetes.kept_objects import Head, KeptObjects, head_of
from launch_async.adapters.runners.kubernetes.kinds import Kind
from launch_async.domain.errors import Unavailable
from launch_async.kit.slow import said_when_slow
from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import BrokenOff, KubeRefused, Silence, Status, decoded

SLICE_SECONDS = 0.004
"""How long objects of a list are decoded before the loop has its turn."""
PAGE_BYTES = 4 << 20
"""Pages that are longer have fewer objects the next time."""
QUICK_SECONDS = 5.0
"""A watch that ends so soon, without a word, has done nothing."""
FUTILE = 3
"""So many of them in a row are an outage."""
ANEW = 4
"""After so many failures it lists: an API server that was restored from a backup knows nothing of
where the watch was, and calls that a timeout."""
STALE = 1.25
"""Of the idle time, after which nobody is believed who was not heard."""

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How an informer waits. API servers send a bookmark every 60 to 75 s to a quiet watch."""

    idle_seconds: float = 90.0
    watch_seconds: float = 300.0
    """When the API server ends a watch, about."""
    first_pause_seconds: float = 0.25
    longest_pause_seconds: float = 30.0
    refused_seconds: float = 60.0
    """Between two tries of what we may not do."""
    page: int = 500


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    next_page: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: tuple[msgspec.Raw, ...] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


_EVENTS = msgspec.json.Decoder(_Event)
_STATUSES = msgspec.json.Decoder(Status)


class _Broken(Exception):
    """The watch is of no use; `anew` when neither is the place where it was."""

    def __init__(self, why: str, *, anew: bool, wait_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.anew = anew
        self.wait_seconds = wait_seconds


class Informer(Generic[T]):
    """`serve` fills it; `on_change` hears of each change with whether the object is gone.

    It hears of an object that was there already, and of one whose last state nobody saw; as
    `KeptObjects` says. `on_health` is called when `fresh` changes.
    """

    def __init__(  # noqa: PLR0917 - all of them say what is watched
        self,
        cluster: KubeCluster,
        kind: Kind,
        namespace: str | None,
        selector: str,
        of: type[T],
        on_change: Callable[[T, bool], None],
        *,
        on_health: Callable[[], None] = lambda: None,
        fields: str = "",
        pace: Pace | None = None,
    ) -> None:
        """`namespace` None: all of them. `fields` is a field selector."""
        self.kind = kind
        self.namespace = namespace
        self._cluster = cluster
        self._path = kind.path(namespace)
        selected = {"labelSelector": selector, "fieldSelector": fields}
        self._selected = {name: value for name, value in selected.items() if value}
        self._kept = KeptObjects(of, on_change, self._what)
        self._on_health = on_health
        self._pace = pace or Pace()
        self._limit = self._pace.page
        self._version: str | None = None
        self._failures = 0
        self._futile = 0
        self._heard_at = -math.inf
        self._lines = 0
        self._why = "not listed yet"
        self._told = ""
        self._synced = False
        self._answered = anyio.Event()

    @property
    def fresh(self) -> bool:
        """Whether what it has is what the API server has, as far as one can know."""
        return not self.why

    @property
    def why(self) -> str:
        """Why it is not fresh; "" when it is."""
        if not self._why and self.age_seconds > STALE * self._pace.idle_seconds:
            return f"nothing heard for {self.age_seconds:.0f} s"
        return self._why

    @property
    def age_seconds(self) -> float:
        """Since the API server was heard last."""
        return anyio.current_time() - self._heard_at

    @property
    def lists(self) -> bool:
        """Whether it takes over a list: what `on_change` hears to be gone now went unseen."""
        return self._version is None

    def objects(self) -> Mapping[str, T]:
        """Each object by its uid, now; what becomes of them shows in it."""
        return self._kept.by_uid()

    async def wait_synced(self) -> None:
        """Until it was fresh for the first time.

        Raises:
            Unavailable: the API server does not let us list or watch.
        """
        await self._answered.wait()
        if not self._synced:
            raise Unavailable(
                f"{self.kind.plural} of {self.namespace or 'all namespaces'} cannot be watched:"
                f" {self._why}"
            )

    async def serve(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                if self._version is None:
                    self._version = await self._list()
                pause = await self._watch(self._version)
            except KubeRefused as error:
                pause = self._refused(error)
            except Silence as error:
                self._version = None
                pause = self._lost(str(error), said=False)
            except Unavailable as error:
                pause = max(self._lost(str(error)), error.retry_after_seconds or 0.0)
                self._version = self._version if self._failures < ANEW else None
            except _Broken as error:
                pause = self._ended(futile=True, why=str(error))
                pause = max(pause, error.wait_seconds)
                self._version = None if error.anew else self._version
            except Exception as error:
                log.exception("kubernetes watch failed", **self._what)
                self._version = None
                pause = self._lost(f"{type(error).__name__} in the agent: see its log")
            await anyio.sleep(pause)

    async def _list(self) -> str:
        """Take over what is there, forget what is not; the version to watch from."""
        seen: set[str] = set()
        following: str | None = None
        limit = self._limit
        while True:
            params = {**self._selected, "limit": str(limit)}
            if following:
                params["continue"] = following
            content = await self._cluster.get(self._path, params)
            page = decoded(content, _Page)
            self._heard_at = anyio.current_time()
            await self._take_all(page.items or (), seen)
            if len(content) > PAGE_BYTES:
                self._limit = min(self._limit, max(1, limit * PAGE_BYTES // len(content)))
            following = page.metadata.next_page
            if not following:
                break
        self._kept.forget_all_but(seen)
        return page.metadata.resource_version

    async def _take_all(self, items: tuple[msgspec.Raw, ...], seen: set[str]) -> None:
        began = time.perf_counter()
        for item in items:
            head = _head(item)
            if head.uid:
                seen.add(head.uid)
                self._kept.take(head, item)
            if time.perf_counter() - began > SLICE_SECONDS:
                await anyio.lowlevel.checkpoint()
                began = time.perf_counter()

    async def _watch(self, version: str) -> float:
        """Follow what happens from `version` to the watch's end; how long to wait then."""
        seconds = self._pace.watch_seconds * random.uniform(0.8, 1.2)  # noqa: S311
        params = {
            **self._selected,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(math.ceil(seconds)),
        }
        began, lines = anyio.current_time(), self._lines
        stream = self._cluster.lines(self._path, params, idle_seconds=self._pace.idle_seconds)
        why = "watches end at once"
        try:
            async with aclosing(stream) as events:
                with ExitStack() as opened:
                    async for line in events:
                        self._heard_at = anyio.current_time()
                        if line:
                            self._hear(line)
                        if line or self._futile < FUTILE:
                            self._well()
                        else:  # it is open, as others were: believed when it stays so
                            waited = said_when_slow(self._well, after_seconds=QUICK_SECONDS)
                            opened.enter_context(waited)
        except BrokenOff as error:
            why = str(error)
        quick = anyio.current_time() - began < QUICK_SECONDS
        return self._ended(futile=quick and self._lines == lines, why=why)

    def _hear(self, line: bytes) -> None:
        try:
            event = _EVENTS.decode(line)
        except msgspec.MsgspecError as error:
            raise _Broken("a watch brought what is no event", anew=True) from error
        if event.type == "ERROR":
            raise _broken_by(event.object)
        head = _head(event.object)
        match event.type:
            case "ADDED" | "MODIFIED" if head.uid:
                self._kept.take(head, event.object)
            case "DELETED" if head.uid:
                self._kept.take(head, event.object, told=False)
                self._kept.forget(head.uid)
            case _:
                pass  # a bookmark, or a type of the future
        self._version = head.resource_version or self._version
        self._lines += 1
        self._failures = self._futile = 0

    def _tell_health(self) -> None:
        try:
            self._on_health()
        except Exception:
            log.exception("the health of a kubernetes watch was not handled", **self._what)

    def _well(self) -> None:
        if not self._why:
            return
        self._why = ""
        if self._told:
            log.info("kubernetes watch is back", **self._what)
        self._told = ""
        self._failures = 0
        self._synced = True
        self._answered.set()
        self._tell_health()

    def _ended(self, *, futile: bool, why: str) -> float:
        """A watch was open and ended; the next one begins at once if it was of use."""
        if not futile:
            return random.uniform(0.0, self._pace.first_pause_seconds)  # noqa: S311
        self._futile += 1
        if self._futile >= FUTILE:
            return self._lost(why)
        self._failures += 1
        return self._pause()

    def _lost(self, why: str, *, said: bool = True) -> float:
        self._failures += 1
        self._say(why, kind="lost" if said else "")
        return self._pause()

    def _refused(self, error: KubeRefused) -> float:
        if error.expired:
            self._version = None
            return self._ended(futile=True, why=error.message)
        self._version = None
        remedy = "grant the agent the verbs list and watch; " if error.forbidden else ""
        self._say(f"{remedy}{error.message}", kind="refused")
        self._answered.set()
        return self._pace.refused_seconds * random.uniform(0.8, 1.2)  # noqa: S311

    def _say(self, why: str, *, kind: str) -> None:
        """Not fresh any more; each kind of trouble is logged once until it is over."""
        was_fresh, self._why = not self._why, why
        if kind and kind != self._told:
            log.warning("kubernetes watch lost", why=why, **self._what)
            self._told = kind
        if was_fresh:
            self._tell_health()

    def _pause(self) -> float:
        doubled = self._pace.first_pause_seconds * 2.0 ** min(self._failures - 1, 20)
        longest = min(doubled, self._pace.longest_pause_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311

    @property
    def _what(self) -> dict[str, str]:
        """For logs."""
        return {
            "cluster": self._cluster.name,
            "kind": self.kind.kind,
            "namespace": self.namespace or "all",
        }


def _head(item: msgspec.Raw) -> Head:
    try:
        return head_of(item)
    except msgspec.MsgspecError as error:
        raise _Broken("the API server gave an object without metadata", anew=True) from error


def _broken_by(said: msgspec.Raw) -> _Broken:
    try:
        status = _STATUSES.decode(said)
    except msgspec.MsgspecError:
        return _Broken("a watch ended with an error that is not read", anew=True)
    why = f"a watch ended with {status.code}: {status.message}"
    return _Broken(why, anew=status.code == 410, wait_seconds=status.retry_after_seconds or 0.0)
