"""What an item's user is told when the API server says no, with the remedy."""

from launch_async.adapters.runners.kubernetes.manifest import Manifest
from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.wire.kubernetes.errors import KubeRefused


def refused(error: KubeRefused, manifest: Manifest) -> ItemError:
    """What the item's user is told of a refusal, with the remedy."""
    what = f"{manifest.kind} in the namespace {manifest.namespace}"
    if error.not_found:
        return ItemError(
            f"The namespace {manifest.namespace} is not there: {error.message}. Name another, or"
            " have it made.",
            reason=Reason.RESOURCE_ARGS_INVALID,
        )
    if error.invalid:
        return ItemError(
            f"The cluster refuses this {what}: {error.message}. Correct the queue's resource"
            " config or the item's.",
            reason=Reason.RESOURCE_ARGS_INVALID,
        )
    if error.forbidden:
        remedy = (
            "Wait for room in the quota, or ask for less."
            if "exceeded quota" in error.message
            else "Grant it to the agent's service account, or use another namespace or kind."
        )
        return ItemError(
            f"The cluster does not allow this {what}: {error.message}. {remedy}",
            reason=Reason.FORBIDDEN,
            stage=Stage.RUN,
        )
    return ItemError(
        f"The cluster did not take this {what}: {error.message}",
        reason=Reason.LAUNCH_FAILED,
        stage=Stage.RUN,
    )
