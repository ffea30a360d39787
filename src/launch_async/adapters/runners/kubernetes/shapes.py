"""What a resource config is: part of a Job, a Job, a Pod or another kind; and what its kind lacks.

Defaults are those of W&B's agent (launch-features.md K1), for Jobs and bare Pods. Other kinds have
controllers with defaults of their own, and get none.
"""

import re

import msgspec

from launch_async.adapters.runners.kubernetes.fields import (
    Document,
    Path,
    invalid,
    make_object,
    quoted,
    read_text,
)

DEFAULT_TTL_SECONDS = 60
MIN_TTL_SECONDS = 600
"""What a finished Job stays if nobody removes it: time for a dead agent to come back."""

_JOB_FIELDS = frozenset(
    {"activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "completionMode"}
    | {"completions", "managedBy", "manualSelector", "maxFailedIndexes", "parallelism"}
    | {"podFailurePolicy", "podReplacementPolicy", "selector", "successPolicy", "suspend"}
    | {"template", "ttlSecondsAfterFinished"}
)
_API_VERSION = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?v[a-z0-9]{1,62}", re.ASCII)
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}", re.ASCII)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The kind of an object, and what follows from it."""

    api_version: str
    kind: str
    ttl_seconds: int | None = None
    """Of a Job: how long its queue wants it to stay once it has ended."""

    @property
    def is_job(self) -> bool:
        """Whether it is a Job of Kubernetes itself."""
        return self.kind == "Job" and self.api_version.startswith("batch/")

    @property
    def is_plain(self) -> bool:
        """Whether its pods are the run's and no others: a Job or a Pod."""
        return self.is_job or (self.kind == "Pod" and self.api_version == "v1")


def complete(body: Document) -> Shape:
    """Find out the kind, and write into `body` what its kind needs and lacks.

    Raises:
        ItemError: the kind cannot be told, or a field is not what it should be.
    """
    shape = identify(body)
    if shape.is_job:
        return msgspec.structs.replace(shape, ttl_seconds=_complete_job(body))
    if shape.is_plain:
        _complete_pod(make_object(body, "spec", ()))
    return shape


def identify(body: Document) -> Shape:
    """Find out the kind, and write it down; without a word of it, it is a Job.

    As with W&B's agent, `group` and `version` go before `apiVersion`.

    Raises:
        ItemError: the kind cannot be told.
    """
    api_version, kind = read_text(body, "apiVersion", ()), read_text(body, "kind", ())
    group, version = read_text(body, "group", ()), read_text(body, "version", ())
    if group is not None or version is not None:
        own_group, _, own_version = (api_version or "").rpartition("/")
        group, version = group or own_group, version or own_version
        api_version = f"{group}/{version}" if group else version
    if kind is None:
        if api_version is not None and not api_version.startswith("batch/"):
            raise invalid(("kind",), f"is missing: say what of {quoted(api_version)} it is.")
        kind = "Job"
    if api_version is None:
        api_version = {"Job": "batch/v1", "Pod": "v1"}.get(kind)
    if api_version is None:
        raise invalid(
            ("apiVersion",), f"is missing: say whose kind {quoted(kind)} is, as group/version."
        )
    if not _API_VERSION.fullmatch(api_version):
        raise invalid(
            ("apiVersion",), f"is {quoted(api_version)}: write it like batch/v1 or ray.io/v1."
        )
    if not _KIND.fullmatch(kind):
        raise invalid(("kind",), f"is {quoted(kind)}: write it like Job or PyTorchJob.")
    body["apiVersion"], body["kind"] = api_version, kind
    return Shape(api_version=api_version, kind=kind)


def _complete_job(body: Document) -> int:
    for key in [key for key in body if key in _JOB_FIELDS]:
        spec = make_object(body, "spec", ())
        if key in spec:
            raise invalid((key,), "is there twice, here and in `spec`: remove one.")
        spec[key] = body.pop(key)
    spec = make_object(body, "spec", ())
    _no_containers(body, ())
    _no_containers(spec, ("spec",))
    template = make_object(spec, "template", ("spec",))
    _no_containers(template, ("spec", "template"))
    _complete_pod(make_object(template, "spec", ("spec", "template")))
    if spec.get("backoffLimit") is None and spec.get("backoffLimitPerIndex") is None:
        spec["backoffLimit"] = 0
    return _keep(spec)


def _complete_pod(spec: Document) -> None:
    if spec.get("restartPolicy") is None:
        spec["restartPolicy"] = "Never"
    if spec.get("containers") in (None, []):
        spec["containers"] = [{}]


def _keep(spec: Document) -> int:
    """Have the finished Job stay long enough, and return how long its queue wants it to stay."""
    key = "ttlSecondsAfterFinished"
    wanted = DEFAULT_TTL_SECONDS if spec.get(key) is None else spec[key]
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
        raise invalid(("spec", key), "must be a whole number of seconds, 0 or more.")
    spec[key] = max(wanted, MIN_TTL_SECONDS)
    return wanted


def _no_containers(fields: Document, path: Path) -> None:
    if "containers" in fields:
        raise invalid(
            (*path, "containers"),
            "belongs into `spec.template.spec` of a Job. For a bare pod add `apiVersion: v1` and"
            " `kind: Pod`.",
        )
