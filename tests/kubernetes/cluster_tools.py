"""The Kubernetes cluster of the tests, and what tests do with it beside the code under test.

    cluster.apply(manifest, namespace)                       # as the kubeconfig's user
    job = cluster.wait_for(path, lambda job: job.get("status", {}).get("succeeded"))
    cluster.kubectl("get", "pods", namespace=namespace)      # where kubectl itself is the point

Everything here blocks. Tests of coroutines call it through `anyio.to_thread`, or `until`.
"""

import base64
import fcntl
import json
import os
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from build_tools import CACHE

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/cluster"
REMEDY = "start one with `make cluster` (root, Go), or name yours in KUBECONFIG"
LOCK_SECONDS = 900.0
PATIENCE_SECONDS = 60.0

Json = dict[str, Any]
T = TypeVar("T")
NewNamespace = Callable[..., str]
"""`new_namespace(pod_security="restricted")` returns its name."""


class Refused(Exception):
    """The API server's no."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body.decode(errors='replace')[:2000]}")
        self.status = status


class Access(msgspec.Struct, frozen=True):
    """How to call an API server as the kubeconfig says."""

    server: str
    tls: ssl.SSLContext | None
    token: str | None

    def __repr__(self) -> str:
        return f"Access({self.server})"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


class Cluster(msgspec.Struct, frozen=True):
    """A cluster that tests may use. `host` is where its pods reach this machine, if they can."""

    kubeconfig: Path
    access: Access
    kubectl_program: str
    host: str | None

    @property
    def is_ours(self) -> bool:
        """Whether its components may be stopped and nodes be added."""
        return self.host is not None

    def call(self, method: str, path: str, body: Any = None, *, kind: str = "json") -> Any:
        """Call the API; `kind` is that of a PATCH: `merge-patch+json`, `apply-patch+yaml`."""
        content = None if body is None else json.dumps(body).encode()
        headers = {**self.access.headers, "Content-Type": f"application/{kind}"}
        url = self.access.server + path
        request = urllib.request.Request(url, content, headers, method=method)  # noqa: S310
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.access.tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=self.access.tls))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=30) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read()) from None
        return json.loads(said) if said.startswith((b"{", b"[")) else said.decode()

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def find(self, path: str) -> Any | None:
        """Return None for what is not there."""
        try:
            return self.get(path)
        except Refused as error:
            if error.status != 404:
                raise
            return None

    def delete(
        self, path: str, *, propagation: str = "Background", grace: int | None = None
    ) -> None:
        """Ask for it; what is not there is no error."""
        body: Json = {"propagationPolicy": propagation}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            self.call("DELETE", path, body)
        except Refused as error:
            if error.status != 404:
                raise

    def apply(self, manifest: Mapping[str, Any], namespace: str) -> Json:
        """Create an object of any kind whose plural is its name and s."""
        return self.call("POST", collection(manifest, namespace), manifest)

    def kubectl(
        self,
        *words: str,
        namespace: str | None = None,
        stdin: str | None = None,
        seconds: float = PATIENCE_SECONDS,
    ) -> str:
        """Return what it prints; the test fails with its words if it fails."""
        command = [self.kubectl_program, *(["-n", namespace] if namespace else []), *words]
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(CACHE / "kubectl"),
        }
        return _run(command, environment, stdin=stdin, seconds=seconds)

    def logs(self, pod: str, namespace: str, **query: str) -> str:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        return self.call("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log?{words}")

    def pods(self, namespace: str, selector: str = "") -> list[Json]:
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"
        return self.get(path)["items"]

    def wait_for(
        self,
        path: str,
        wanted: Callable[[Json], object] = bool,
        *,
        seconds: float = PATIENCE_SECONDS,
    ) -> Json:
        """Return the object once it is there and as wanted."""
        last: list[Any] = [None]

        def look() -> Json | None:
            last[0] = self.find(path)
            return last[0] if last[0] is not None and wanted(last[0]) else None

        return wait_until(look, seconds=seconds, what=lambda: f"{path} stayed {last[0]}")

    def wait_gone(self, path: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        wait_until(
            lambda: self.find(path) is None, seconds=seconds, what=lambda: f"{path} is still there"
        )

    def load(self, *images: str) -> None:
        """Copy images of the Docker engine to the node."""
        script("load", *images, seconds=300)

    def stop(self, component: str, signal: str = "TERM") -> None:
        """End one of: etcd apiserver kcm scheduler containerd kubelet proxy kwok."""
        script("stop", component, signal)

    def start(self, component: str) -> None:
        """Return when it answers."""
        script("start", component)

    def restart(self, component: str, signal: str = "TERM") -> None:
        script("restart", component, signal)


class Kwok:
    """Nodes whose pods have no containers: any number of pods, and as they are told to go."""

    nodes = 20

    def pod(self) -> Json:
        """What a pod's spec needs to come to these nodes."""
        toleration = {"key": "kwok", "operator": "Exists", "effect": "NoSchedule"}
        return {"nodeSelector": {"type": "kwok"}, "tolerations": [toleration]}

    def play(
        self,
        *,
        starts_after: str = "0s",
        runs_for: str = "0s",
        exit_code: int = 0,
        reason: str | None = None,
    ) -> dict[str, str]:
        """The annotations that tell a pod how it goes; durations are Go's, as `90s`."""
        play = {
            "launch-async-test/starts-after": starts_after,
            "launch-async-test/runs-for": runs_for,
            "launch-async-test/exit-code": str(exit_code),
        }
        return play | ({"launch-async-test/reason": reason} if reason else {})


def find_cluster() -> Cluster | None:
    """Return the cluster that tests may use, if it answers."""
    found = subprocess.run([SCRIPT, "status"], capture_output=True, text=True, check=False)
    if found.returncode:
        return None
    kubeconfig = Path(found.stdout.strip())
    program = script("kubectl").strip()
    access = read_access(kubeconfig, program)
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    ours = _run([str(SCRIPT), "kubeconfig"], environment).strip()
    host = access.server.removeprefix("https://").rpartition(":")[0]
    return Cluster(kubeconfig, access, program, host if str(kubeconfig) == ours else None)


def read_access(kubeconfig: Path, kubectl: str) -> Access:
    """Read one with a token or a client certificate; plug-ins that log in are not asked."""
    command = [kubectl, "config", "view", "--raw", "--minify", "--flatten", "-o", "json"]
    said = json.loads(_run(command, {**os.environ, "KUBECONFIG": str(kubeconfig)}))
    cluster, user = said["clusters"][0]["cluster"], said["users"][0]["user"]
    if not user.get("token") and not user.get("client-certificate-data"):
        raise AssertionError(
            f"the user of {kubeconfig} has neither a token nor a client certificate; make one with"
            " `kubectl create token` and name a file with it in KUBECONFIG"
        )
    tls = _tls(cluster, user) if cluster["server"].startswith("https://") else None
    return Access(cluster["server"].rstrip("/"), tls, user.get("token"))


def collection(manifest: Mapping[str, Any], namespace: str) -> str:
    """Return the path of all objects of that kind."""
    version, plural = manifest["apiVersion"], f"{manifest['kind'].lower()}s"
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{plural}"


def job(
    name: str,
    image: str,
    command: Sequence[str],
    *,
    pod: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Json:
    """Return a Job of one container; `pod` has more of its pods' spec, `spec` of its own."""
    container = {"name": "main", "image": image, "command": list(command)}
    pod_spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        **(pod or {}),
    }
    template = {"metadata": {"annotations": dict(annotations or {})}, "spec": pod_spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, **spec, "template": template},
    }


def has_condition(wanted: Mapping[str, Any], kind: str) -> bool:
    """Tell whether an object has a condition of that type that is true."""
    conditions = wanted.get("status", {}).get("conditions") or []
    return any(one["type"] == kind and one["status"] == "True" for one in conditions)


def wait_until(
    check: Callable[[], T],
    *,
    seconds: float = PATIENCE_SECONDS,
    what: Callable[[], str] = lambda: "it never came",
) -> T:
    """Return what `check` says once that is true; ask the less often the longer it takes."""
    begin = time.monotonic()
    while not (found := check()):
        waited = time.monotonic() - begin
        if waited > seconds:
            raise AssertionError(f"after {seconds:g} s: {what()}")
        time.sleep(min(0.05 + waited / 20, 0.3))
    return found


async def until(check: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """As `wait_until`, for coroutines; `check` may block."""
    return await anyio.to_thread.run_sync(
        lambda: wait_until(check, seconds=seconds), abandon_on_cancel=True
    )


def script(*words: str, seconds: float = 120.0) -> str:
    """Return what scripts/cluster prints; the test fails with its words if it fails."""
    return _run([str(SCRIPT), *words], dict(os.environ), seconds=seconds)


@contextmanager
def sharing(*, alone: bool) -> Iterator[None]:
    """Use the cluster beside tests of other processes, or alone when they are through with it."""
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    CACHE.mkdir(parents=True, exist_ok=True)
    # Who wants it alone keeps newcomers out while those before end.
    with (
        (CACHE / "cluster-gate.lock").open("w") as gate,
        (CACHE / "cluster-use.lock").open("w") as use,
    ):
        _lock(gate, kind)
        _lock(use, kind)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def _lock(file: Any, kind: int) -> None:
    def taken() -> bool:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    wait_until(taken, seconds=LOCK_SECONDS, what=lambda: "another test keeps the cluster")


def _tls(cluster: Json, user: Json) -> ssl.SSLContext:
    authority = base64.b64decode(cluster.get("certificate-authority-data", "")).decode()
    tls = ssl.create_default_context(cadata=authority or None)
    # Authorities of clusters are not always as strict as newer Pythons ask.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if certificate := user.get("client-certificate-data"):
        with tempfile.NamedTemporaryFile() as both:
            both.write(base64.b64decode(certificate) + b"\n")
            both.write(base64.b64decode(user["client-key-data"]))
            both.flush()
            tls.load_cert_chain(both.name)
    return tls


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: str | None = None,
    seconds: float = PATIENCE_SECONDS,
) -> str:
    done = subprocess.run(
        command,
        env=environment,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} said: {done.stdout}{done.stderr}"
    return done.stdout
