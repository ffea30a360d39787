"""Which kinds a cluster has, and where: asked of the API server, as a plural cannot be guessed."""

import re
from collections.abc import Mapping
from difflib import get_close_matches

import anyio
import msgspec

from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.wire.kubernetes.cluster import KubeCluster
from launch_async.wire.kubernetes.errors import KubeRefused, decoded

REFRESH_SECONDS = 30.0
"""Between two looks for a kind that was not there: somebody may just have installed it."""
MAX_VERSIONS = 500
"""Whose kinds are kept, the oldest ones forgotten first: they come from users."""

_API_VERSION = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?v[a-z0-9]{1,62}")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}")


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of objects, as the cluster has it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Of an object, or of all in a namespace, or of all (`namespace` None).

        Raises:
            ItemError: the names would be a path of something else.
        """
        root = "/apis/" if "/" in self.api_version else "/api/"
        parts = [root + self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        if name is not None:
            parts.append(_segment(name))
        return "/".join(parts)


JOBS = Kind(api_version="batch/v1", kind="Job", plural="jobs", namespaced=True)
PODS = Kind(api_version="v1", kind="Pod", plural="pods", namespaced=True)


class _Resource(msgspec.Struct, frozen=True):
    name: str
    kind: str
    namespaced: bool = False


class _ResourceList(msgspec.Struct, frozen=True):
    resources: tuple[_Resource, ...] = ()


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    group_version: str


class _Group(msgspec.Struct, frozen=True):
    versions: tuple[_Version, ...] = ()


class _GroupList(msgspec.Struct, frozen=True):
    groups: tuple[_Group, ...] = ()


class Kinds:
    """The kinds of one cluster, each version's asked for when one of it is wanted."""

    def __init__(self, cluster: KubeCluster, *, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._cluster = cluster
        self._refresh_seconds = refresh_seconds
        self._versions: dict[str, tuple[float, Mapping[str, Kind]]] = {}
        self._groups: tuple[float, tuple[str, ...]] | None = None
        self._lock = anyio.Lock()

    async def find(self, api_version: str, kind: str) -> Kind:
        """The kind, from memory if it was there before.

        Raises:
            ItemError: the cluster has no such kind.
            Unavailable: the cluster does not say.
        """
        found = self._known(api_version, kind)
        if found is not None:
            return found
        if not _API_VERSION.fullmatch(api_version) or not _KIND.fullmatch(kind):
            text = f"apiVersion {api_version!r} and kind {kind!r} cannot be names of a kind"
            raise _wrong(f"{text}: write them as in `apiVersion: batch/v1`, `kind: Job`")
        async with self._lock:
            kinds = await self._kinds_of(api_version)
            if kind in kinds:
                return kinds[kind]
            raise _wrong(await self._missing(api_version, kind, kinds))

    def _known(self, api_version: str, kind: str) -> Kind | None:
        _, kinds = self._versions.get(api_version, (0.0, {}))
        return kinds.get(kind)

    async def _kinds_of(self, api_version: str) -> Mapping[str, Kind]:
        """Never older than `refresh_seconds`, unless the kind that is wanted is among them."""
        asked_at, kinds = self._versions.get(api_version, (None, {}))
        now = anyio.current_time()
        if asked_at is not None and now < asked_at + self._refresh_seconds:
            return kinds
        root = "/apis/" if "/" in api_version else "/api/"
        try:
            listed = decoded(await self._cluster.get(root + api_version), _ResourceList)
        except KubeRefused as error:
            if not error.not_found:
                raise self._unreadable(error) from error
            listed = _ResourceList()
        kinds = {
            one.kind: Kind(
                api_version=api_version,
                kind=one.kind,
                plural=one.name,
                namespaced=one.namespaced,
            )
            for one in listed.resources
            if "/" not in one.name  # parts of a kind, such as pods/log
        }
        self._versions.pop(api_version, None)
        while len(self._versions) >= MAX_VERSIONS:
            del self._versions[next(iter(self._versions))]
        self._versions[api_version] = (now, kinds)
        return kinds

    async def _missing(self, api_version: str, kind: str, kinds: Mapping[str, Kind]) -> str:
        text = f"cluster {self._cluster.name} has no kind {kind} in {api_version}"
        near = get_close_matches(kind, kinds, n=3)
        if not near and not kinds:
            versions = await self._all_versions()
            group = api_version.partition("/")[0]
            same = [one for one in versions if one.partition("/")[0] == group]
            near = same or get_close_matches(api_version, versions, n=3)
        hint = f"; near it: {', '.join(sorted(near))}" if near else ""
        remedy = "Correct apiVersion and kind, or have the operator of the kind installed"
        return f"{text}{hint}. {remedy}."

    async def _all_versions(self) -> tuple[str, ...]:
        now = anyio.current_time()
        if self._groups is None or now >= self._groups[0] + self._refresh_seconds:
            try:
                listed = decoded(await self._cluster.get("/apis"), _GroupList)
            except KubeRefused as error:
                raise self._unreadable(error) from error
            versions = tuple(one.group_version for group in listed.groups for one in group.versions)
            self._groups = (now, (*versions, "v1"))
        return self._groups[1]

    def _unreadable(self, error: KubeRefused) -> Unavailable:
        msg = f"cluster {self._cluster.name} does not say which kinds it has: {error.message}"
        return Unavailable(msg)


def _segment(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _wrong(f"{name!r} cannot be the name of an object or a namespace")
    return name


def _wrong(text: str) -> ItemError:
    return ItemError(text, reason=Reason.RESOURCE_ARGS_INVALID)
