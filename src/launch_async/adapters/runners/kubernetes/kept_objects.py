"""Objects of one kind as the API server told of them last, and who hears of their changes."""

from collections.abc import Callable, Mapping, Set
from typing import Generic, TypeVar

import msgspec
import structlog

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Head(msgspec.Struct, frozen=True, rename="camel"):
    """Which object in which version."""

    uid: str = ""
    resource_version: str = ""


class _Headed(msgspec.Struct, frozen=True):
    metadata: Head


_HEADS = msgspec.json.Decoder(_Headed)


def head_of(item: msgspec.Raw) -> Head:
    """Of an object in JSON; raises `msgspec.MsgspecError` when it is none."""
    return _HEADS.decode(item).metadata


class KeptObjects(Generic[T]):
    """`on_change` hears of each change with whether the object is gone.

    What it raises is a fault of ours: it is logged, and the next change is told. `what`: of which
    objects, for logs.
    """

    def __init__(
        self, of: type[T], on_change: Callable[[T, bool], None], what: Mapping[str, str]
    ) -> None:
        self._decoder = msgspec.json.Decoder(of)
        self._on_change = on_change
        self._what = what
        self._objects: dict[str, T] = {}
        self._versions: dict[str, str] = {}
        self._unreadable = False

    def by_uid(self) -> Mapping[str, T]:
        """All of them now; what becomes of them shows in it."""
        return self._objects

    def take(self, head: Head, item: msgspec.Raw, *, told: bool = True) -> None:
        """It is there in this version; one that was told of already is not decoded again."""
        if self._versions.get(head.uid) == head.resource_version:
            return
        self._versions[head.uid] = head.resource_version
        try:
            found = self._decoder.decode(item)
        except msgspec.MsgspecError as error:
            if not self._unreadable:  # what was known of it stays
                log.warning("kubernetes object is not read", why=str(error), **self._what)
            self._unreadable = True
            return
        self._objects[head.uid] = found
        if told:
            self._tell(found, gone=False)

    def forget(self, uid: str) -> None:
        """It is gone."""
        self._versions.pop(uid, None)
        gone = self._objects.pop(uid, None)
        if gone is not None:
            self._tell(gone, gone=True)

    def forget_all_but(self, there: Set[str]) -> None:
        """These uids are all that there are."""
        for uid in [uid for uid in self._versions if uid not in there]:
            self.forget(uid)

    def _tell(self, found: T, *, gone: bool) -> None:
        try:
            self._on_change(found, gone)
        except Exception:
            log.exception("a change of a kubernetes object was not handled", **self._what)
