"""Names, labels and annotations of what is made in a cluster: derived, so that it is found again.

```
<prefix>-<run id>-<8 hex digits of the item>      launch-7k2m9xq1-0f3a9c21
```

All values are made to fit where Kubernetes takes only some characters. The labels that monitors and
clean-ups of W&B's agents go by (`wandb.ai/monitor`, `/agent`, `/created-by`) are not used: such an
agent would act on our runs.
"""

import hashlib
import re

import msgspec

from launch_async.domain.run import Origin

IDENTITY_LABEL = "launch-async/identity"
RUN_LABEL = "launch-async/run"
ITEM_LABEL = "launch-async/item"
SERVICE_LABEL = "launch-async/service-of"
"""In place of the item's label on what runs beside a run, whose pods are not the run's."""
ORIGIN_ANNOTATION = "launch-async/origin"
"""JSON of an `Origin`."""
TTL_ANNOTATION = "launch-async/ttl"
"""Seconds that the queue wants a finished Job to stay."""
IMAGE_ANNOTATION = "launch-async/image"
CODE_IMAGE_ANNOTATION = "launch-async/code-image"
"""The image of the container that fetches the run's code, if there is one."""
SERVICES_ANNOTATION = "launch-async/services"
"""How many objects are beside the run."""
MANAGED_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "launch-async"
WANDB_RUN_LABEL = "wandb.ai/run-id"
OUR_PREFIX = "launch-async/"

DEFAULT_PREFIX = "launch"
MAX_NAME = 47
"""KubeRay takes no longer name for a RayJob; others append to it too, within 63 in all."""
MAX_RUN = 20

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_OTHER = re.compile(r"[^a-z0-9]+")


def object_name(prefix: str, run_id: str, item_id: str) -> str:
    """The name of an item's object: a DNS label that begins with a letter."""
    tail = f"-{_digest(item_id)[:8]}"
    run = dns_words(run_id)[:MAX_RUN].strip("-")
    if run:
        tail = f"-{run}{tail}"
    head = dns_words(prefix) or DEFAULT_PREFIX
    if not head[0].isalpha():
        head = f"{DEFAULT_PREFIX}-{head}"
    return head[: MAX_NAME - len(tail)].rstrip("-") + tail


def pull_secret_name(name: str) -> str:
    """Of the Secret with the registries' logins, beside the object of this name."""
    return f"{name}-pull"


def services_secret_name(name: str) -> str:
    """Of the Secret that owns what runs beside the run of this object."""
    return f"{name}-services"


def label_value(text: str) -> str:
    """`text` itself if it can be a label's value, else a stable one made from its hash."""
    return text if _LABEL.fullmatch(text) else f"x-{_digest(text)[:40]}"


def is_dns_label(text: str) -> bool:
    """Whether Kubernetes takes `text` as the name of a namespace."""
    return _DNS_LABEL.fullmatch(text) is not None


def dns_words(text: str) -> str:
    """`text` in lower case, all that no DNS label has replaced by dashes; may be empty."""
    return _OTHER.sub("-", text.lower()).strip("-")


def run_labels(origin: Origin) -> dict[str, str]:
    """What a run's object, its pods and its Secrets carry; they are selected by these."""
    return {
        IDENTITY_LABEL: label_value(origin.identity),
        RUN_LABEL: label_value(origin.run.run_id),
        ITEM_LABEL: label_value(origin.item_id),
    }


def service_labels(origin: Origin) -> dict[str, str]:
    """What is made beside a run carries."""
    labels = run_labels(origin)
    labels[SERVICE_LABEL] = labels.pop(ITEM_LABEL)
    return labels


def origin_annotation(origin: Origin) -> dict[str, str]:
    """All that is needed to take the run up again; no secrets."""
    return {ORIGIN_ANNOTATION: msgspec.json.encode(origin).decode()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
