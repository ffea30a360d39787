"""Ways to clusters: kubeconfigs, pods, login programs and certificates, and what is said of bad
ones.
"""

import base64
import json
import os
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from kube_site import KubeSite, answer, kube_site, status, wants

from launch_async.adapters.runners.kubernetes.clusters import connector
from launch_async.adapters.runners.kubernetes.runner import KubernetesRunner
from launch_async.domain.errors import ConfigError, Unavailable
from launch_async.wire.kubernetes.access import Access
from launch_async.wire.kubernetes.cluster import KubeCluster

pytestmark = pytest.mark.anyio

ENVIRON = {"PATH": os.environ["PATH"]}
API = {"versions": ["v1"]}


@pytest.fixture
async def site() -> AsyncGenerator[KubeSite]:
    async with kube_site() as site:
        site.on("GET", "/api", answer(API))
        yield site


def access(path: Path | None, context: str | None = None, **environ: str) -> Access:
    return Access(config_file=path, context=context, environ={**ENVIRON, **environ})


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


async def login_by(way: Access) -> str | None:
    found = (await way.way()).headers.get("Authorization")
    return None if found is None else found.reveal()


def entries(**said: Any) -> dict[str, Any]:
    """A kubeconfig's lists: `contexts={"name": {...}}` and so on."""
    lists = {
        what: [{"name": name, what.removesuffix("s"): entry} for name, entry in named.items()]
        for what, named in said.items()
        if what != "current"
    }
    return {"current-context": said["current"], **lists} if "current" in said else lists


def two_contexts(path: Path) -> Path:
    said = entries(
        current="staging",
        contexts={
            "staging": {"cluster": "c", "user": "u"},
            "production": {"cluster": "d", "user": "v", "namespace": "ml"},
        },
        clusters={"c": {"server": "https://c:6443/"}, "d": {"server": "https://d/k8s/clusters/x"}},
        users={"u": {"token": "of-u"}, "v": {"username": "joe", "password": "pass"}},
    )
    path.write_text(yaml.safe_dump(said))
    return path


async def test_the_current_context_counts_unless_another_is_named(tmp_path: Path):
    path = two_contexts(tmp_path / "config")
    place = await access(path).open()
    assert (place.context, place.server, place.namespace) == (
        "staging",
        "https://c:6443",
        "default",
    )
    assert await login_by(access(path)) == "Bearer of-u"
    place = await access(path, "production").open()
    assert (place.server, place.namespace) == ("https://d/k8s/clusters/x", "ml")
    basic = base64.b64encode(b"joe:pass").decode()
    assert await login_by(access(path, "production")) == f"Basic {basic}"


async def test_an_unknown_context_is_told_with_those_that_there_are(tmp_path: Path):
    path = two_contexts(tmp_path / "config")
    with pytest.raises(ConfigError) as caught:
        await access(path, "productoin").open()
    text = str(caught.value)
    assert f"{path}" in text
    assert "did you mean production?" in text
    assert "production, staging" in text
    assert "of-u" not in text


async def test_the_files_of_kubeconfig_are_merged_the_first_one_wins(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two" / "config"
    two.parent.mkdir()
    (two.parent / "token").write_text("of-two\n")
    contexts = {"both": {"cluster": "c", "user": "u"}}
    one.write_text(yaml.safe_dump(entries(current="both", clusters={"c": {"server": "http://1"}})))
    two.write_text(
        yaml.safe_dump(
            entries(
                contexts=contexts,
                clusters={"c": {"server": "http://2"}},
                users={"u": {"tokenFile": "token"}},  # below its own file's folder
            )
        )
    )
    way = access(None, KUBECONFIG=f"{one}:{tmp_path / 'none'}:{two}")
    assert (await way.open()).server == "http://1"
    assert await login_by(way) == "Bearer of-two"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "cannot be read"),
        ("- a\n- list", "cannot be read"),
        ("a: b: c", "cannot be read"),
        ("contexts: 3", "cannot be read"),
        ("contexts: [{}]", "cannot be read"),
        ("kind: Config", "sets no current-context; name one of its contexts: none"),
        (yaml.safe_dump(entries(current="x", contexts={"y": {}})), "no context x. It has: y"),
        (yaml.safe_dump(entries(current="x", contexts={"x": {}})), r"missing.*cluster"),
        (
            yaml.safe_dump(entries(current="x", contexts={"x": {"cluster": 3}})),
            r"Expected `str`, got `int` - at `\$.cluster`",
        ),
        (
            yaml.safe_dump(entries(current="x", contexts={"x": {"cluster": "c"}})),
            "no cluster c. It has: none",
        ),
    ],
)
async def test_a_wrong_kubeconfig_is_one_clear_error(tmp_path: Path, said: str, why: str):
    path = tmp_path / "config"
    path.write_text(said)
    with pytest.raises(ConfigError, match=why) as caught:
        await access(path).open()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("cluster", "user", "why"),
    [
        ({"server": "c:6443"}, {}, "server must be an https:// or http:// address"),
        ({"proxy-url": "socks5://x"}, {}, "proxy-url must be"),
        ({"certificate-authority": "none"}, {}, "certificate-authority is in .*none.*cannot"),
        ({"certificate-authority-data": "%"}, {}, "certificate-authority-data is not base64"),
        ({}, {"client-key": "none"}, "client-key is in .*none, which cannot be read"),
        ({}, {"tokenFile": "none"}, "cannot be read"),
        ({}, {"auth-provider": {"name": "gcp"}}, "auth-provider gcp, which is of no use here"),
        ({}, {"as": "x", "as-groups": ["y"]}, "as-groups is not supported"),
        (
            {},
            {"exec": {"command": "x", "apiVersion": "v1", "interactiveMode": "Always"}},
            "x, which asks a person",
        ),
    ],
)
async def test_an_entry_that_cannot_be_used_says_why(
    site: KubeSite, tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], why: str
):
    path = site.kubeconfig(tmp_path / "config", user, cluster)
    with pytest.raises(ConfigError, match=why):
        await access(path).open()


async def test_a_kubeconfig_that_is_not_there_is_named_with_the_setting(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"{tmp_path}/none does not exist on the agent's"):
        await access(tmp_path / "none").open()
    with pytest.raises(ConfigError, match=f"KUBECONFIG names {tmp_path}/none, which"):
        await access(None, KUBECONFIG=f"{tmp_path}/none").open()
    with pytest.raises(ConfigError, match=r"Set KUBECONFIG or agent.kubernetes.config_file"):
        await access(None, HOME=str(tmp_path)).open()


async def test_a_call_with_a_wrong_configuration_is_an_outage_of_that_cluster(tmp_path: Path):
    cluster = KubeCluster(config_file=tmp_path / "none", environ=ENVIRON)
    with pytest.raises(Unavailable, match="does not exist"):
        await cluster.check()
    with pytest.raises(ConfigError, match="does not exist"):
        await cluster.open()


async def test_a_runner_whose_cluster_is_wrongly_configured_is_away(tmp_path: Path):
    connect = connector(
        config_file=tmp_path / "none",
        context=None,
        environ=ENVIRON,
        calls_per_second=1,
        burst=1,
    )
    runner = KubernetesRunner(connect=connect, folder=tmp_path)
    with pytest.raises(Unavailable, match=f"{tmp_path}/none does not exist"):
        await runner.check()


async def test_the_usual_file_is_read_when_nothing_names_another(site: KubeSite, tmp_path: Path):
    (tmp_path / ".kube").mkdir()
    site.kubeconfig(tmp_path / ".kube/config", context={"namespace": "mine"})
    cluster = KubeCluster(environ={**ENVIRON, "HOME": str(tmp_path)})
    await cluster.open()
    assert cluster.namespace == "mine"


async def test_another_current_context_is_not_followed_to_another_cluster(
    site: KubeSite, tmp_path: Path
):
    path = site.kubeconfig(tmp_path / "config", {"token": "old"}, name="first")
    site.on("GET", "/api", wants("Bearer new", answer(API)))
    cluster = KubeCluster(config_file=path, environ=ENVIRON)
    await cluster.open()
    try:
        said = yaml.safe_load(site.kubeconfig(path, {"token": "new"}, name="first").read_text())
        path.write_text(yaml.safe_dump({**said, "current-context": "second"}))
        await cluster.check()
        said["contexts"][0]["name"] = "third"
        path.write_text(yaml.safe_dump(said))
        site.on("GET", "/api", status(401, "Unauthorized", "Unauthorized"))
        with pytest.raises(Unavailable, match="401"):
            await cluster.check()
    finally:
        await cluster.close()


# Pods


def service_account(folder: Path, content: str = "of-the-pod") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(f"{content}\n")
    (folder / "namespace").write_text("agents\n")
    (folder / "ca.crt").write_text("")
    return folder


def in_pod(folder: Path, home: Path, **settings: Any) -> Access:
    environ = {**ENVIRON, "HOME": str(home), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    return Access(
        config_file=None,
        context=settings.pop("context", None),
        environ={**environ, **settings.pop("environ", {})},
        service_account=folder,
        **settings,
    )


async def test_a_pod_uses_its_service_account(tmp_path: Path):
    folder = service_account(tmp_path / "account")
    place = await in_pod(folder, tmp_path).open()
    assert (place.server, place.namespace) == ("https://10.0.0.1:443", "agents")
    six = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert (await in_pod(folder, tmp_path, environ=six).open()).server == "https://[fd00::1]:6443"
    way = in_pod(folder, tmp_path, server="http://here")
    assert await login_by(way) == "Bearer of-the-pod"


async def test_a_pods_token_is_read_again_when_it_is_refused_or_old(tmp_path: Path):
    folder = service_account(tmp_path / "account")
    clock = Clock()
    way = in_pod(folder, tmp_path, server="http://here", now=clock)
    first = await way.way()
    assert await way.another(first) is None
    service_account(folder, "newer")
    assert await way.another(first) is None  # looked at just now
    assert await way.way() is first
    clock.time += 11
    newer = await way.another(first)
    assert newer is not None
    assert newer.headers["Authorization"].reveal() == "Bearer newer"
    assert await way.way() is newer
    service_account(folder, "newest")
    clock.time += 46
    assert await login_by(way) == "Bearer newest"
    (folder / "token").unlink()
    clock.time += 1000
    assert await login_by(way) == "Bearer newest"


async def test_a_pod_without_a_service_account_is_told_what_it_needs(tmp_path: Path):
    with pytest.raises(ConfigError, match="automountServiceAccountToken"):
        await in_pod(tmp_path / "none", tmp_path).open()
    with pytest.raises(ConfigError, match="no kubeconfig that could have the context x"):
        await in_pod(tmp_path / "none", tmp_path, context="x").open()


# Login programs


class Program:
    """A login program that counts its runs and does as `said` says."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log-in"
        self._runs = folder / "runs"
        self._runs.write_text("")
        self.path.write_text(
            f"#!{sys.executable} -S\nimport json, os, sys, time, subprocess\n"
            f"open({str(self._runs)!r}, 'a').write('x')\n"
            f"exec(open({str(folder / 'body.py')!r}).read())\n"
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)
        self.gives("one")

    @property
    def runs(self) -> int:
        return len(self._runs.read_text())

    def does(self, body: str) -> None:
        (self.path.parent / "body.py").write_text(body)

    def gives(self, token: str, *, lives_seconds: float | None = None) -> None:
        status: dict[str, Any] = {"token": token}
        if lives_seconds is not None:
            ends = time.gmtime(time.time() + lives_seconds)
            status["expirationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", ends)
        self.does(f"print({credential(status)!r})")

    def user(self, **said: Any) -> dict[str, Any]:
        version = "client.authentication.k8s.io/v1"
        return {"exec": {"command": str(self.path), "apiVersion": version, **said}}


def credential(said: dict[str, Any]) -> str:
    version = "client.authentication.k8s.io/v1"
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": said})


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


Ways = Callable[..., Access]


@pytest.fixture
def way_by(site: KubeSite, tmp_path: Path, program: Program) -> Ways:
    def make(user: dict[str, Any] | None = None, **settings: Any) -> Access:
        path = site.kubeconfig(
            tmp_path / "config", user or program.user(), settings.pop("cluster", None)
        )
        return Access(config_file=path, context=None, environ=ENVIRON, **settings)

    return make


async def test_a_login_program_runs_once_for_all_who_ask(program: Program, way_by: Ways):
    way = way_by()
    await way.open()
    assert program.runs == 0
    tokens: list[str | None] = []

    async def ask() -> None:
        tokens.append(await login_by(way))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    assert tokens == ["Bearer one"] * 20
    assert program.runs == 1


async def test_a_token_is_replaced_before_it_ends_and_while_others_use_it(
    program: Program, way_by: Ways, tmp_path: Path
):
    clock, go_on = Clock(), tmp_path / "go on"
    program.gives("first", lives_seconds=900)
    way = way_by(now=clock)
    assert await login_by(way) == "Bearer first"
    clock.time += 600
    assert await login_by(way) == "Bearer first"
    assert program.runs == 1
    clock.time += 100
    waits = f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)"
    program.does(f"{waits}\nprint({credential({'token': 'second'})!r})")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(way.way)
        while program.runs == 1:
            await anyio.sleep(0.01)
        assert await login_by(way) == "Bearer first"
        go_on.touch()
    assert await login_by(way) == "Bearer second"
    assert program.runs == 2


async def test_a_token_that_ends_at_once_is_used_for_a_while(program: Program, way_by: Ways):
    clock = Clock()
    program.gives("short", lives_seconds=-60)
    way = way_by(now=clock)
    for _ in range(5):
        await way.way()
    assert program.runs == 1


async def test_an_old_token_is_kept_while_no_new_one_can_be_had(program: Program, way_by: Ways):
    clock = Clock()
    program.gives("old", lives_seconds=900)
    way = way_by(now=clock)
    assert await login_by(way) == "Bearer old"
    program.does("sys.exit('no network')")
    clock.time += 700
    for _ in range(5):
        assert await login_by(way) == "Bearer old"
    assert program.runs == 2  # it is not asked at each call
    clock.time += 31
    assert await login_by(way) == "Bearer old"
    assert program.runs == 3
    clock.time += 200
    with pytest.raises(Unavailable, match="no network"):
        await way.way()
    program.gives("new")
    clock.time += 11
    assert await login_by(way) == "Bearer new"


async def test_a_program_that_fails_is_not_run_for_each_who_asks(program: Program, way_by: Ways):
    program.does("sys.stdout.write('a-token'); sys.exit('first line\\nthe session has expired')")
    way = way_by()
    for _ in range(5):
        with pytest.raises(Unavailable) as caught:
            await way.way()
    text = str(caught.value)
    assert "exit code 1: the session has expired; try `kubectl --context site version`" in text
    assert "a-token" not in text
    assert program.runs == 1


async def test_a_program_that_is_not_installed_is_told_with_its_hint(way_by: Ways):
    version = "client.authentication.k8s.io/v1"
    user = {"exec": {"command": "no-such-login", "apiVersion": version, "installHint": "Get it!"}}
    with pytest.raises(
        ConfigError, match=r"no-such-login, which is not on the agent's PATH.*Get it!"
    ):
        await way_by(user).open()


async def test_a_program_that_hangs_is_ended_with_all_that_it_started(
    program: Program, way_by: Ways, tmp_path: Path
):
    pids = tmp_path / "pids"
    program.does(
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(600)"
    )
    with pytest.raises(Unavailable, match="did not end in 1 s"):
        await way_by(plug_in_seconds=1.0).way()
    for pid in pids.read_text().split():
        with anyio.fail_after(5):
            while (
                Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()
            ):
                await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("print('my-token')", "printed no ExecCredential"),
        ("print('{}')", "printed no ExecCredential"),
        (f"print({credential({})!r})", "neither a token nor a certificate"),
        (f"print({credential({'clientCertificateData': 'x'})!r})", "neither a token nor"),
        (
            'print(\'{"apiVersion": "v0", "kind": "ExecCredential", "status": {}}\')',
            "speaks v0, and the kubeconfig says",
        ),
        ("print('my-token' * 1000000)", "prints without an end"),
    ],
)
async def test_a_program_that_gives_no_login_is_told_without_its_words(
    program: Program, way_by: Ways, body: str, why: str
):
    program.does(body)
    with pytest.raises(Unavailable, match=why) as caught:
        await way_by().way()
    assert "my-token" not in str(caught.value)


async def test_a_program_hears_what_the_entry_says_and_of_the_cluster(
    program: Program, way_by: Ways, tmp_path: Path
):
    heard = tmp_path / "heard"
    program.does(
        f"json.dump([sys.argv[1:], os.environ['PLACE'], os.environ['KUBERNETES_EXEC_INFO']],"
        f" open({str(heard)!r}, 'w'))\nprint({credential({'token': 't'})!r})"
    )
    user = program.user(
        args=["get token", "--for", "x y"],
        env=[{"name": "PLACE", "value": "here"}],
        provideClusterInfo=True,
    )
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"id": 7}}
    await way_by(user, cluster={"extensions": [extension]}).way()
    args, place, told = json.loads(heard.read_text())
    assert (args, place) == (["get token", "--for", "x y"], "here")
    spec = json.loads(told)["spec"]
    assert spec["interactive"] is False
    assert spec["cluster"]["config"] == {"id": 7}
    assert spec["cluster"]["server"].startswith("http://127.0.0.1")


async def test_a_refused_token_of_a_program_is_replaced(
    site: KubeSite, program: Program, tmp_path: Path
):
    site.on("GET", "/api", wants("Bearer two", answer(API)))
    cluster = KubeCluster(
        config_file=site.kubeconfig(tmp_path / "config", program.user()), environ=ENVIRON
    )
    try:
        await cluster.access.way()
        program.gives("two")
        await cluster.check()
        assert site.logins == ["Bearer one", "Bearer two"]
        site.on("GET", "/api", wants("Bearer three", answer(API)))
        for _ in range(5):
            with pytest.raises(Unavailable, match="401"):
                await cluster.check()
        assert program.runs == 2  # again only after a while
    finally:
        await cluster.close()


# Certificates


class Certificates:
    """An authority, a server's and a client's certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run(
            "req", "-x509", *self._key("ca"), "-days", "2", "-subj", "/CN=ca", "-out", "ca.crt"
        )
        self._sign("server", "subjectAltName=IP:127.0.0.1,DNS:api.example")
        self._sign("client", "extendedKeyUsage=clientAuth")

    def bytes(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def data(self, name: str) -> str:
        return base64.b64encode(self.bytes(name)).decode()

    def server(self, *, client_needed: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        if client_needed:
            context.load_verify_locations(self.folder / "ca.crt")
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _sign(self, name: str, extension: str) -> None:
        self._run("req", *self._key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr")
        (self.folder / "extensions").write_text(extension)
        self._run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", f"{name}.crt"),
        )

    def _key(self, name: str) -> tuple[str, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        return (*curve, "-keyout", f"{name}.key")

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def check(path: Path, **settings: Any) -> None:
    cluster = KubeCluster(config_file=path, environ=ENVIRON, **settings)
    try:
        await cluster.check()
    finally:
        await cluster.close()


@pytest.mark.parametrize("form", ["files", "data", "program"])
async def test_a_client_certificate_is_shown(
    certificates: Certificates, program: Program, tmp_path: Path, form: str
):
    files = {"client-certificate": "client.crt", "client-key": "client.key"}
    user: dict[str, Any] = {name: str(certificates.folder / file) for name, file in files.items()}
    if form == "data":
        user = {f"{name}-data": certificates.data(file) for name, file in files.items()}
    if form == "program":
        shown = {
            "clientCertificateData": certificates.bytes("client.crt").decode(),
            "clientKeyData": certificates.bytes("client.key").decode(),
        }
        program.does(f"print({credential(shown)!r})")
        user = program.user()
    ca = {"certificate-authority-data": certificates.data("ca.crt")}
    async with kube_site(certificates.server(client_needed=True)) as site:
        site.on("GET", "/api", answer(API))
        await check(site.kubeconfig(tmp_path / "config", user, ca))
        with pytest.raises(Unavailable):
            await check(site.kubeconfig(tmp_path / "config", {}, ca))


async def test_only_the_clusters_own_authority_is_trusted(
    certificates: Certificates, tmp_path: Path
):
    async with kube_site(certificates.server()) as site:
        site.on("GET", "/api", answer(API))
        path = tmp_path / "config"
        with pytest.raises(Unavailable, match=r"cannot be trusted.*certificate-authority"):
            await check(site.kubeconfig(path))
        ca = str(certificates.folder / "ca.crt")
        await check(site.kubeconfig(path, cluster={"certificate-authority": ca}))
        named = {"certificate-authority": ca, "tls-server-name": "api.example"}
        await check(site.kubeconfig(path, cluster=named))
        with pytest.raises(Unavailable, match="cannot be trusted"):
            await check(site.kubeconfig(path, cluster={**named, "tls-server-name": "other"}))
        await check(site.kubeconfig(path, cluster={"insecure-skip-tls-verify": True}))


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("certificate-authority-data", "no pem", "holds no certificates in PEM"),
        ("client-certificate-data", "no pem", "the client certificate and its key cannot be used"),
    ],
)
async def test_a_certificate_that_is_none_is_told(
    certificates: Certificates, tmp_path: Path, name: str, data: str, why: str
):
    wrong = {name: base64.b64encode(data.encode()).decode()}
    async with kube_site(certificates.server()) as site:
        user = {"client-key-data": certificates.data("client.key"), **wrong}
        path = site.kubeconfig(tmp_path / "config", user, wrong)
        with pytest.raises(ConfigError, match=why):
            await access(path).way()


async def test_a_key_with_a_password_is_refused_and_nobody_is_asked(
    certificates: Certificates, tmp_path: Path
):
    words = ["-in", "client.key", "-out", "locked.key", "-aes128", "-passout", "pass:x"]
    subprocess.run(
        ["openssl", "ec", *words], cwd=certificates.folder, check=True, capture_output=True
    )
    user = {
        "client-certificate": str(certificates.folder / "client.crt"),
        "client-key": str(certificates.folder / "locked.key"),
    }
    async with kube_site(certificates.server()) as site:
        with anyio.fail_after(10), pytest.raises(ConfigError, match="cannot be used"):
            await access(site.kubeconfig(tmp_path / "config", user)).way()


# The library


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_is_loaded_when_a_kubeconfig_is_read():
    loaded = python(
        "import sys, launch_async.wire.kubernetes.cluster as c\n"
        "import launch_async.adapters.runners.kubernetes.informer\n"
        "c.KubeCluster(environ={})\nprint('kubernetes_asyncio' in sys.modules)"
    )
    assert loaded.strip() == "False"


def test_an_absent_library_is_told_with_what_installs_it(tmp_path: Path):
    path = two_contexts(tmp_path / "config")
    said = python(
        "import sys, anyio, pathlib; sys.modules['kubernetes_asyncio'] = None\n"
        "from launch_async.domain.errors import ConfigError\n"
        "from launch_async.wire.kubernetes.cluster import KubeCluster\n"
        f"cluster = KubeCluster(config_file=pathlib.Path({str(path)!r}), environ={{}})\n"
        "try:\n    anyio.run(cluster.open)\nexcept ConfigError as error:\n    print(error)"
    )
    assert "pip install 'launch-async[kubernetes]'" in said


async def test_an_openid_token_is_used_as_kubectl_left_it(site: KubeSite, tmp_path: Path):
    def user(**config: str) -> dict[str, Any]:
        return {"auth-provider": {"name": "oidc", "config": {"client-secret": "x", **config}}}

    path = site.kubeconfig(tmp_path / "config", user(**{"id-token": "of-the-issuer"}))
    assert await login_by(access(path)) == "Bearer of-the-issuer"
    with pytest.raises(ConfigError, match="with a login program"):
        await access(site.kubeconfig(path, user(**{"refresh-token": "x"}))).open()
