"""Pod Security's restricted profile as a default: only where the resource config says nothing.

W&B's agent puts the same three fields in place of whatever the config has (launch-features.md K14),
which breaks all that an admin sets. `runAsNonRoot` is not among them: most images run as root.
A container keeps its engine's own capabilities by `capabilities: {}`.
"""

from launch_async.adapters.runners.kubernetes.fields import make_object, read_object
from launch_async.adapters.runners.kubernetes.pods import (
    Container,
    PodTemplate,
    init_containers_of,
)

_SYS_ADMIN = ("SYS_ADMIN", "CAP_SYS_ADMIN", "ALL", "CAP_ALL")


def restrict(pod: PodTemplate) -> None:
    """Complete the security context of each container of this pod, also of those that prepare.

    Raises:
        ItemError: a security context is no object.
    """
    if pod.spec.get("os") == {"name": "windows"}:
        return  # the API server refuses these fields there
    whole = read_object(pod.spec, "securityContext", pod.spec_path)
    for container in (*init_containers_of(pod), *pod.containers):
        _restrict(container, profiled=whole.get("seccompProfile") is not None)


def _restrict(container: Container, *, profiled: bool) -> None:
    context = make_object(container.fields, "securityContext", container.path)
    if context.get("privileged"):
        return  # it is asked for all, and allowPrivilegeEscalation: false would contradict
    capabilities = read_object(context, "capabilities", (*container.path, "securityContext"))
    added = capabilities.get("add")
    opened = isinstance(added, list) and any(name in _SYS_ADMIN for name in added)
    if context.get("allowPrivilegeEscalation") is None and not opened:
        context["allowPrivilegeEscalation"] = False
    if context.get("capabilities") is None:
        context["capabilities"] = {"drop": ["ALL"]}
    if context.get("seccompProfile") is None and not profiled:
        context["seccompProfile"] = {"type": "RuntimeDefault"}
