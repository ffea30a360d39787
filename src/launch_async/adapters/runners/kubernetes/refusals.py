"""What is told when the API server says no, with the remedy."""

from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.wire.kubernetes.errors import KubeRefused


def refused(error: KubeRefused, manifest: Manifest) -> ItemError:
    """What an item's user is told of an object of its run."""
    settings = "the queue's resource config or the item's"
    text = _told(error, manifest.kind, manifest.namespace, settings)
    if error.not_found or error.invalid:
        return ItemError(text, reason=Reason.RESOURCE_ARGS_INVALID)
    reason = Reason.FORBIDDEN if error.forbidden else Reason.LAUNCH_FAILED
    return ItemError(text, reason=reason, stage=Stage.RUN)


def refused_own(error: KubeRefused, kind: str, namespace: str) -> Unavailable:
    """What is told of what the agent makes for itself: its operator must act."""
    return Unavailable(_told(error, kind, namespace, "the builder's settings"))


def _told(error: KubeRefused, kind: str, namespace: str, settings: str) -> str:
    what, why = f"this {kind} in the namespace {namespace}", error.message
    if error.not_found:
        remedy = f"Make the namespace {namespace}, or name another."
        return f"The cluster has no place for this {kind}: {why}. {remedy}"
    if error.invalid:
        return f"The cluster refuses {what}: {why}. Correct {settings}."
    if error.forbidden:
        remedy = (
            "Wait for room in the quota, or ask for less."
            if "exceeded quota" in why
            else "Grant it to the agent's service account, or use another namespace or kind."
        )
        return f"The cluster does not allow {what}: {why}. {remedy}"
    return f"The cluster did not take {what}: {why}"
