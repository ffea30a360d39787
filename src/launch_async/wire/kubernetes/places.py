"""Where an API server is and who we are there, as a kubeconfig or a pod's files say it now."""

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret
from launch_async.wire.kubernetes.plug_in import PlugIn
from launch_async.wire.kubernetes.tls import Tls

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where every pod finds its service account."""
FILE_SECONDS = 60.0
"""How long a token is used before its file is read again; kubelets replace it in good time."""
IN_CLUSTER = "the agent's own cluster"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One way to one API server."""

    context: str
    server: str
    namespace: str
    tls: Tls
    proxy: str | None = None
    """What the cluster's entry names; None: what the environment says."""
    authorization: Secret[str] | None = None
    """The header."""
    headers: Mapping[str, str] = {}
    """Whom to act as."""
    plug_in: PlugIn | None = None
    lifetime_seconds: float = math.inf
    """When to read all this again."""


def kubeconfigs(config_file: Path | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The kubeconfigs to merge; () when there is none and the agent runs in a pod.

    Raises:
        ConfigError: what was named does not exist, or nothing says where a cluster is.
    """
    home = Path(environ.get("HOME") or Path.home())
    if config_file is not None:
        path = _at_home(config_file, home)
        if path.is_file():
            return (path,)
        msg = f"the kubeconfig {path} does not exist on the agent's machine: correct its path"
        raise ConfigError(msg)
    named = environ.get("KUBECONFIG", "")
    if named.strip(":"):
        paths = tuple(_at_home(Path(one), home) for one in named.split(":") if one)
        found = tuple(path for path in paths if path.is_file())
        if not found:
            msg = f"KUBECONFIG names {named}, which does not exist: correct or unset it"
            raise ConfigError(msg)
        return found
    usual = home / ".kube" / "config"
    if usual.is_file():
        return (usual,)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return ()
    msg = (
        f"nothing says where the Kubernetes cluster is: there is no {usual}, KUBECONFIG is not set,"
        " and the agent runs in no pod. Set KUBECONFIG or agent.kubernetes.config_file."
    )
    raise ConfigError(msg)


def in_cluster(environ: Mapping[str, str], service_account: Path = SERVICE_ACCOUNT) -> Place:
    """The cluster that the agent's pod runs in. Blocks.

    Raises:
        ConfigError: the pod has no service account.
    """
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        token = (service_account / "token").read_text(encoding="ascii").strip()
        ca = (service_account / "ca.crt").read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        msg = (
            f"the agent's pod has no usable service account in {service_account} ({why}): give it"
            " one (automountServiceAccountToken: true), or set agent.kubernetes.config_file"
        )
        raise ConfigError(msg) from error
    try:
        namespace = (service_account / "namespace").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        namespace = ""
    return Place(
        context=IN_CLUSTER,
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace or "default",
        tls=Tls(ca=ca),
        authorization=Secret(f"Bearer {token}"),
        lifetime_seconds=FILE_SECONDS,
    )


def _at_home(path: Path, home: Path) -> Path:
    parts = path.parts
    return home.joinpath(*parts[1:]) if parts and parts[0] == "~" else path.absolute()
