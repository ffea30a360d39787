"""What queues may ask of a cluster, as the agent's operator says in `agent.kubernetes`.

A queue's config is its admin's and is trusted: without a word of the operator all of it is let
through, and the cluster's own rules decide (RBAC, Pod Security, admission). What an *item* changes
in it is domain/policy.py's, and checked before. docs/adr/0013 says why.
"""

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from launch_async.adapters.runners.kubernetes.fields import Path, place, quoted
from launch_async.domain.errors import ItemError, Reason


class KubernetesPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator allows; None: anything. Patterns are those of shells, such as `team-*`."""

    namespaces: tuple[str, ...] | None = None
    """Patterns of namespaces that runs may be put into; the default one must be among them."""
    allowed_kinds: tuple[str, ...] | None = None
    """Patterns of `apiVersion/kind` that may be made, such as `batch/v1/Job` and `*/RayJob`."""
    config_files: tuple[str, ...] | None = None
    """Kubeconfigs that may be named: programs in them run as the agent."""
    service_accounts: tuple[str, ...] | None = None
    """Patterns of service accounts that pods may name."""
    allow: frozenset[str] | None = None
    """Those of `OPENINGS` that configs may use."""

    def check_cluster(self, config_file: str | None, context: str | None) -> None:
        """Raises ItemError when another cluster than the agent's own may not be named."""
        files = self.config_files
        if config_file is not None and files is not None and config_file not in files:
            listed = ", ".join(files) or "none"
            raise _forbidden(
                f"`configFile` names {quoted(config_file)}, which is no kubeconfig that queues of"
                f" this agent may use (agent.kubernetes.config_files: {listed}). Name another, or"
                " let the agent's operator add it."
            )
        if context is not None:
            self._require("context", ("context",))

    def check_namespace(self, namespace: str) -> None:
        """Raises ItemError when runs may not be put there."""
        if not _matches(namespace, self.namespaces):
            listed = ", ".join(self.namespaces or ()) or "none"
            raise _forbidden(
                f"the namespace {namespace} is not open to queues of this agent"
                f" (agent.kubernetes.namespaces: {listed}). Name another as `metadata.namespace`,"
                " or let the agent's operator add it."
            )

    def check_kind(self, api_version: str, kind: str) -> None:
        """Raises ItemError when nothing of this kind may be made."""
        if not _matches(f"{api_version}/{kind}", self.allowed_kinds):
            listed = ", ".join(self.allowed_kinds or ()) or "none"
            raise _forbidden(
                f"{api_version}/{kind} is no kind that this agent makes"
                f" (agent.kubernetes.allowed_kinds: {listed}). Use another, or let the agent's"
                " operator add it."
            )

    def check_body(self, body: Any) -> None:
        """Look at every key of a manifest, at any depth, so that no kind hides anything.

        Raises:
            ItemError: it uses what is not allowed.
        """
        if self.allow is None and self.service_accounts is None:
            return
        for path, key, value in _keys(body, ()):
            for opening in _opened(path, key, value):
                self._require(opening, path)
            if key in _ACCOUNT_KEYS:
                self._check_account(value, path)

    def _require(self, opening: str, path: Path) -> None:
        if self.allow is not None and opening not in self.allow:
            raise _forbidden(
                f"{place(path)} is refused, as it opens the cluster to jobs. Remove it, or let the"
                f" agent's operator add {opening} to agent.kubernetes.allow."
            )

    def _check_account(self, value: Any, path: Path) -> None:
        if value in (None, "") or (
            isinstance(value, str) and _matches(value, self.service_accounts)
        ):
            return
        if self.service_accounts is not None:
            listed = ", ".join(self.service_accounts) or "none"
            raise _forbidden(
                f"{place(path)} names a service account that is not open to queues of this agent"
                f" (agent.kubernetes.service_accounts: {listed}). Name another, or let the agent's"
                " operator add it."
            )


def _forbidden(said: str) -> ItemError:
    return ItemError(f"Resource config of kubernetes: {said}", reason=Reason.FORBIDDEN)


def _matches(name: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def _keys(value: Any, path: Path) -> Iterator[tuple[Path, str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*path, key), key, part
            yield from _keys(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _keys(part, (*path, index))


def _opened(path: Path, key: str, value: Any) -> Iterator[str]:
    opens = _OPENING_KEYS.get(key)
    if opens is not None and opens(value):
        yield key
    if key == "type" and value == _TOKEN_OF_AN_ACCOUNT:
        yield "serviceAccountToken"
    if key in _PROFILE_KEYS and isinstance(value, dict) and value.get("type") == "Unconfined":
        yield "unconfined"
    if len(path) > 1 and path[-2] == "annotations" and _unconfines(key, value):
        yield "unconfined"


def _unconfines(annotation: str, value: Any) -> bool:
    name = annotation.lower()
    return ("apparmor" in name or "seccomp" in name) and "unconfined" in str(value).lower()


def _given(value: Any) -> bool:
    return value is not None and value != ""


def _on(value: Any) -> bool:
    return value is not None and value is not False


def _port(value: Any) -> bool:
    return value is not None and value != 0


def _added(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("add"))


_TOKEN_OF_AN_ACCOUNT = "kubernetes.io/service-account-token"  # noqa: S105 - a type of Secrets
_ACCOUNT_KEYS = frozenset({"serviceAccountName", "serviceAccount"})
_PROFILE_KEYS = frozenset({"seccompProfile", "appArmorProfile"})
_OPENING_KEYS: dict[str, Callable[[Any], bool]] = {
    "allowPrivilegeEscalation": _on,
    "automountServiceAccountToken": _on,
    "capabilities": _added,
    "hostIPC": _on,
    "hostNetwork": _on,
    "hostPID": _on,
    "hostPath": _given,
    "hostPort": _port,
    "hostProcess": _on,
    "mountPropagation": lambda value: value not in (None, "None", "HostToContainer"),
    "nodeName": _given,
    "priorityClassName": _given,
    "privileged": _on,
    "procMount": lambda value: value not in (None, "Default"),
    "serviceAccountToken": _given,
}
OPENINGS = frozenset({*_OPENING_KEYS, "context", "unconfined"})
"""What opens the cluster, its nodes or another cluster. `unconfined`: without seccomp or AppArmor;
`context`: another cluster of the same kubeconfig."""
