"""Logins from AWS, Google and Azure, by their own libraries, from servers that stand for them."""

import base64
import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import botocore.session
import botocore.validate
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from known_logins import PLANTED, everything_said
from named_sites import session_where
from scripted_registry import DIGEST, Site, answering, in_turn, manifest, scripted, wants

from launch_async.adapters.registries.azure import SCOPE, AzureLogins
from launch_async.adapters.registries.chain import LoginChain
from launch_async.adapters.registries.client import OciRegistry
from launch_async.adapters.registries.ecr import EcrLogins
from launch_async.adapters.registries.google import GoogleLogins
from launch_async.domain.errors import ItemError, Reason, Unavailable
from launch_async.domain.image import ImageRef
from launch_async.ports.images import RegistryLogin, RegistryLogins

pytestmark = pytest.mark.anyio

ECR = ImageRef.parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1")
GAR = ImageRef.parse("europe-west4-docker.pkg.dev/project/repository/app:1")
ACR = ImageRef.parse("tests.azurecr.io/team/app:1")


def told(login: RegistryLogin | None) -> tuple[str, str] | None:
    return None if login is None else (login.username, login.password.reveal())


async def fifty_at_once(logins: RegistryLogins, image: ImageRef) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(logins.login, image)


class FakeEcr:
    """GetAuthorizationToken as botocore's model of the service has it."""

    def __init__(self) -> None:
        self.model = botocore.session.get_session().get_service_model("ecr")
        self.lifetime_seconds = 12 * 3600.0
        self.regions: list[str] = []

    async def __call__(self, request: web.Request) -> web.Response:
        prefix, _, operation = request.headers["X-Amz-Target"].rpartition(".")
        assert prefix == self.model.metadata["targetPrefix"]
        shape = self.model.operation_model(operation)
        report = botocore.validate.ParamValidator().validate(
            await request.json(), shape.input_shape
        )
        assert not report.has_errors(), report.generate_report()
        self.regions.append(request.headers["Authorization"].split("/")[2])
        data = {
            "authorizationToken": base64.b64encode(f"AWS:{PLANTED}".encode()).decode(),
            "expiresAt": time.time() + self.lifetime_seconds,
        }
        output: Any = shape.output_shape
        assert data.keys() <= output.members["authorizationData"].member.members.keys()
        return web.json_response({"authorizationData": [data]})


@pytest.fixture
async def aws(
    anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Site]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": PLANTED,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    async with scripted() as site:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", site.url)
        yield site


async def test_ecrs_password_is_asked_for_in_the_registrys_region_and_kept(aws: Site):
    ecr = FakeEcr()
    aws.on("POST", "/", ecr)
    logins = EcrLogins()
    await fifty_at_once(logins, ECR)
    login = await logins.login(ECR)
    assert told(login) == ("AWS", PLANTED)
    assert PLANTED not in repr(login)
    assert ecr.regions == ["eu-west-1"]
    other = ImageRef.parse("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/team/app:1")
    assert told(await logins.login(other)) == ("AWS", PLANTED)
    assert ecr.regions == ["eu-west-1", "cn-north-1"]


async def test_ecrs_password_is_renewed_before_it_ends(aws: Site):
    ecr = FakeEcr()
    aws.on("POST", "/", ecr)
    ecr.lifetime_seconds = 0.0
    logins = EcrLogins()
    for _ in range(2):
        assert told(await logins.login(ECR)) == ("AWS", PLANTED)
    assert len(ecr.regions) == 2


@pytest.mark.parametrize(
    "host",
    [
        "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com",
        "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
        "123456789012.dkr-ecr.eu-west-1.on.aws",
    ],
)
async def test_ecr_has_several_kinds_of_names(aws: Site, host: str):
    aws.on("POST", "/", FakeEcr())
    assert await EcrLogins().login(ImageRef.parse(f"{host}/app:1"))


@pytest.mark.parametrize(
    "host",
    [
        "docker.io",
        "public.ecr.aws",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example.com",
        "x.123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "evil-docker.pkg.dev.example.com",
        "docker.pkg.dev",
        "evilgcr.io",
        "evil.example.com",
        "tests.azurecr.io.example.com",
        "a.b.azurecr.io",
        "azurecr.io",
    ],
)
async def test_no_cloud_gives_a_login_for_anothers_registry(aws: Site, session, host: str):
    image = ImageRef.parse(f"{host}/team/app:1")
    for logins in (EcrLogins(), GoogleLogins(required=True), AzureLogins(session)):
        assert await logins.login(image) is None
    assert aws.requests == []


def aws_error(status: int, code: str) -> Any:
    return answering(status, text=json.dumps({"__type": code, "message": "because"}))


async def test_aws_credentials_that_may_not_are_refused(aws: Site):
    aws.on("POST", "/", aws_error(400, "AccessDeniedException"))
    with pytest.raises(ItemError, match="AccessDeniedException: because") as caught:
        await EcrLogins().login(ECR)
    assert caught.value.reason is Reason.REGISTRY_DENIED
    assert ECR.host in str(caught.value)
    assert PLANTED not in everything_said(caught.value)


async def test_no_aws_credentials_at_all_are_said(aws: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ItemError, match="Unable to locate credentials"):
        await EcrLogins().login(ECR)
    assert aws.requests == []


@pytest.mark.parametrize(
    ("status", "code"), [(500, "ServerException"), (400, "ThrottlingException")]
)
async def test_an_outage_of_aws_is_unavailable(aws: Site, status: int, code: str):
    aws.on("POST", "/", aws_error(status, code))
    with pytest.raises(Unavailable, match=code):
        await EcrLogins().login(ECR)


async def test_aws_that_cannot_be_reached_is_unavailable(aws: Site, monkeypatch):
    async with scripted() as gone:
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", gone.url)
    with pytest.raises(Unavailable, match="does not answer"):
        await EcrLogins().login(ECR)


@pytest.fixture
async def google(
    anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Site]:
    """The token server of a service account, whose key is in the usual place."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    async with scripted() as site:
        account = {
            "type": "service_account",
            "project_id": "project",
            "private_key": private.decode(),
            "client_email": "agent@project.iam.gserviceaccount.com",
            "token_uri": f"{site.url}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))

        async def give(request: web.Request) -> web.Response:
            claims = jwt.decode(
                site.forms[-1]["assertion"],
                key.public_key(),
                ["RS256"],
                audience="https://oauth2.googleapis.com/token",
            )
            assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
            body = {"access_token": PLANTED, "expires_in": 3600, "token_type": "Bearer"}
            return web.json_response(body)

        site.on("POST", "/token", give)
        yield site


@pytest.mark.parametrize("host", [GAR.host, "gcr.io", "eu.gcr.io"])
async def test_googles_token_is_a_password_and_kept(google: Site, host: str):
    # Its library blocks, and the server that it waits for is on this very loop.
    logins = GoogleLogins()
    image = ImageRef.parse(f"{host}/project/app:1")
    await fifty_at_once(logins, image)
    assert told(await logins.login(image)) == ("oauth2accesstoken", PLANTED)
    assert len(google.requests) == 1


async def test_a_refused_service_account_is_said(google: Site):
    google.on("POST", "/token", answering(400, text='{"error": "invalid_grant"}'))
    with pytest.raises(ItemError, match="invalid_grant") as caught:
        await GoogleLogins().login(GAR)
    assert GAR.host in str(caught.value)


async def test_an_outage_of_google_is_unavailable(google: Site):
    async with scripted() as gone:
        file = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
        account = json.loads(file.read_text())
        file.write_text(json.dumps({**account, "token_uri": f"{gone.url}/token"}))
    with pytest.raises(Unavailable, match="Google gives no token"):
        await GoogleLogins().login(GAR)


async def test_public_images_of_google_need_no_credentials(google: Site, monkeypatch):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    assert await GoogleLogins().login(GAR) is None
    with pytest.raises(ItemError, match="credentials"):
        await GoogleLogins(required=True).login(GAR)


@pytest.fixture
async def azure(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Site]:
    """The token server of a managed identity."""
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    async with scripted() as site:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{site.url}/identity")
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        until = str(int(time.time()) + 3600)
        token = {"access_token": "entra", "expires_on": until, "token_type": "Bearer"}
        site.on("GET", "/identity", answering(
            200, text=json.dumps({**token, "resource": SCOPE.removesuffix("/.default")}),
            headers={"Content-Type": "application/json"},
        ))  # fmt: skip
        yield site


def refresh_token(lifetime_seconds: float) -> str:
    return jwt.encode({"exp": time.time() + lifetime_seconds}, "k" * 32, algorithm="HS256")


def exchanging(*tokens: str) -> Any:
    return in_turn(*(answering(200, text=json.dumps({"refresh_token": one})) for one in tokens))


async def test_azures_token_is_exchanged_for_the_registrys_and_kept(azure: Site, tls, ca_file):
    token = refresh_token(3 * 3600)
    async with scripted(tls) as site, session_where({ACR.host: site}, ca_file) as session:
        site.on("POST", "/oauth2/exchange", exchanging(token))
        logins = AzureLogins(session)
        await fifty_at_once(logins, ACR)
        assert told(await logins.login(ACR)) == ("00000000-0000-0000-0000-000000000000", token)
        assert site.forms == [
            {"grant_type": "access_token", "service": ACR.host, "access_token": "entra"}
        ]
        assert azure.requests[0].query["resource"] == "https://containerregistry.azure.net"


async def test_azures_token_is_renewed_before_it_ends(azure: Site, tls, ca_file):
    tokens = [refresh_token(0), refresh_token(3600)]
    async with scripted(tls) as site, session_where({ACR.host: site}, ca_file) as session:
        site.on("POST", "/oauth2/exchange", exchanging(*tokens))
        logins = AzureLogins(session)
        found = [told(await logins.login(ACR)) for _ in range(3)]
        assert [one[1] for one in found if one] == [tokens[0], tokens[1], tokens[1]]


async def test_an_azure_registry_is_opened_with_its_token(azure: Site, tls, ca_file):
    token = refresh_token(3600)
    sent = base64.b64encode(f"00000000-0000-0000-0000-000000000000:{token}".encode()).decode()
    async with scripted(tls) as site, session_where({ACR.host: site}, ca_file) as session:
        site.on("POST", "/oauth2/exchange", exchanging(token))
        site.on("HEAD", "/v2/team/app/manifests/1", wants(
            f'Bearer realm="https://{ACR.host}/oauth2/token",service="{ACR.host}"', manifest(),
            valid=lambda header: header == "Bearer acr",
        ))  # fmt: skip
        site.on("GET", "/oauth2/token", wants(
            "Basic", answering(200, text='{"access_token": "acr"}'),
            valid=lambda header: header == f"Basic {sent}",
        ))  # fmt: skip
        assert await OciRegistry(session, AzureLogins(session)).find(ACR) == DIGEST


async def test_an_azure_registry_that_takes_no_token_is_named(azure: Site, tls, ca_file):
    async with scripted(tls) as site, session_where({ACR.host: site}, ca_file) as session:
        site.on("POST", "/oauth2/exchange", answering(401))
        with pytest.raises(ItemError, match="AcrPull") as caught:
            await AzureLogins(session).login(ACR)
    assert ACR.host in str(caught.value)


@pytest.mark.parametrize("answer", [answering(503), answering(200, text="{}")])
async def test_an_outage_of_an_azure_registry_is_unavailable(azure: Site, tls, ca_file, answer):
    async with scripted(tls) as site, session_where({ACR.host: site}, ca_file) as session:
        site.on("POST", "/oauth2/exchange", answer)
        with pytest.raises(Unavailable, match=ACR.host):
            await AzureLogins(session).login(ACR)


async def test_no_azure_credentials_are_said(azure: Site, session):
    azure.on("GET", "/identity", answering(400, text="{}"))
    with pytest.raises(ItemError, match="Azure gives no token"):
        await AzureLogins(session).login(ACR)


@pytest.mark.parametrize(
    ("module", "extra", "image"),
    [("aioboto3", "aws", ECR), ("google.auth", "gcp", GAR), ("azure.identity.aio", "azure", ACR)],
)
async def test_a_library_that_is_missing_is_named_with_its_remedy(
    session, monkeypatch, module, extra, image
):
    monkeypatch.setitem(sys.modules, module, None)
    sources = LoginChain([EcrLogins(), GoogleLogins(required=True), AzureLogins(session)])
    with pytest.raises(ItemError, match=rf"pip install 'launch-async\[{extra}\]'"):
        await sources.login(image)
