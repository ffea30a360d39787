"""Kubeconfigs: merged and logged in with by kubernetes_asyncio, which is loaded when one is needed.

Its own way to run login programs and to keep private keys in temporary files is not used: see
`plug_in` and `tls`.
"""

import asyncio
import base64
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from launch_async.domain.errors import ConfigError, LaunchError
from launch_async.domain.secret import Secret
from launch_async.wire.kubernetes.places import FILE_SECONDS, Place
from launch_async.wire.kubernetes.plug_in import PlugIn
from launch_async.wire.kubernetes.tls import Tls

MAX_NAMES = 20

_LOGINS = ("token", "username", "password")
_EXTENSION = "client.authentication.k8s.io/exec"

T = TypeVar("T")


class _Kebab(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """With kubeconfigs' spelling of most names."""


class _Extension(_Kebab, frozen=True, kw_only=True):
    name: str
    extension: Any = None


class _Cluster(_Kebab, frozen=True, kw_only=True):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    extensions: tuple[_Extension, ...] | None = None


class _Context(_Kebab, frozen=True, kw_only=True):
    cluster: str
    user: str = ""
    namespace: str = ""


class _Variable(msgspec.Struct, frozen=True):
    name: str
    value: str


class _Exec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    command: str
    api_version: str
    args: tuple[str, ...] | None = None
    env: tuple[_Variable, ...] | None = None
    install_hint: str = ""
    interactive_mode: str = ""
    provide_cluster_info: bool = False


class _Provider(msgspec.Struct, frozen=True):
    name: str
    config: dict[str, str] | None = None


class _User(_Kebab, frozen=True, kw_only=True):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    exec: _Exec | None = None
    auth_provider: _Provider | None = None
    act_as: str = msgspec.field(default="", name="as")
    act_as_uid: str = msgspec.field(default="", name="as-uid")
    act_as_groups: tuple[str, ...] | None = msgspec.field(default=None, name="as-groups")


class _Entry(msgspec.Struct, frozen=True):
    """One of a list's, with the folder that its relative paths begin at."""

    content: dict[str, Any]
    folder: Path

    def bytes_of(self, data: str, file: str, what: str) -> bytes | None:
        """What is given in base64, else in a file."""
        try:
            if data:
                return base64.b64decode(data, validate=True)
            return (self.folder / file).read_bytes() if file else None
        except OSError as error:
            msg = f"{what} is in {self.folder / file}, which cannot be read ({error.strerror})"
            raise ConfigError(msg) from error
        except ValueError:
            raise ConfigError(f"{what}-data is not base64") from None


def read_kubeconfig(files: Sequence[Path], context: str | None) -> Place:
    """What these files, merged, say of a context or of their current one. Blocks, for a second
    at its first use.

    Raises:
        ConfigError: they are wrong, or have no such context.
    """
    said = ":".join(str(path) for path in files)
    try:
        return _place(_merged(said), context)
    except ConfigError as error:
        raise ConfigError(f"kubeconfig {said}: {error}") from error
    except LaunchError:
        raise
    except msgspec.ValidationError as error:
        raise ConfigError(f"kubeconfig {said} is wrong: {error}") from None
    except OSError as error:
        raise ConfigError(f"kubeconfig {said} cannot be read ({error.strerror})") from error
    except Exception as error:  # noqa: BLE001 - the library lets whatever its parts raise through
        why = type(error).__name__
        msg = f"kubeconfig {said} cannot be read ({why}): try `kubectl config view` with it"
        raise ConfigError(msg) from None


def _merged(files: str) -> Mapping[str, Any]:
    merger = _library("kubernetes_asyncio.config.kube_config").KubeConfigMerger(files)
    if merger.config is None:
        raise ConfigError("is gone")
    merged: Mapping[str, Any] = merger.config.value
    return merged


def _library(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        msg = (
            "the Python package kubernetes_asyncio is missing: install it where the agent runs,"
            " pip install 'launch-async[kubernetes]'"
        )
        raise ConfigError(msg) from None


def _place(merged: Mapping[str, Any], wanted: str | None) -> Place:
    name = wanted or merged.get("current-context")
    if not name:
        have = _names(_entries(merged, "contexts"))
        raise ConfigError(f"sets no current-context; name one of its contexts: {have}")
    context = msgspec.convert(_entry(merged, "context", name).content, _Context)
    cluster_entry = _entry(merged, "cluster", context.cluster)
    cluster = msgspec.convert(cluster_entry.content, _Cluster)
    user_entry = _Entry({}, Path())
    if context.user:
        user_entry = _entry(merged, "user", context.user)
    user = msgspec.convert(user_entry.content, _User)
    ca = cluster_entry.bytes_of(
        cluster.certificate_authority_data, cluster.certificate_authority, "certificate-authority"
    )
    certificate = user_entry.bytes_of(
        user.client_certificate_data, user.client_certificate, "client-certificate"
    )
    key = user_entry.bytes_of(user.client_key_data, user.client_key, "client-key")
    authorization, lifetime_seconds = _login(user_entry, user, name)
    return Place(
        context=name,
        server=_address(cluster.server, "server"),
        namespace=context.namespace or "default",
        tls=Tls(
            ca=ca,
            certificate=certificate,
            key=None if key is None else Secret(key),
            server_name=cluster.tls_server_name or None,
            verify=not cluster.insecure_skip_tls_verify,
        ),
        proxy=_address(cluster.proxy_url, "proxy-url") if cluster.proxy_url else None,
        authorization=authorization,
        headers=_acting_as(user),
        plug_in=_plug_in(user, user_entry.folder, cluster, ca, name),
        lifetime_seconds=lifetime_seconds,
    )


def _login(entry: _Entry, user: _User, context: str) -> tuple[Secret[str] | None, float]:
    """The Authorization header that the library makes of an entry, and how long it is good."""
    content = {key: entry.content[key] for key in _LOGINS if entry.content.get(key)}
    lifetime_seconds = math.inf
    if user.token_file:  # before `token`, as with kubectl
        content = {"tokenFile": str(entry.folder / user.token_file)}
        lifetime_seconds = FILE_SECONDS
    elif user.auth_provider is not None:
        content = {"token": _openid_token(user.auth_provider, context)}
        lifetime_seconds = FILE_SECONDS
    if user.exec is not None or not content:
        return None, math.inf
    return asyncio.run(_header(content)), lifetime_seconds


def _openid_token(provider: _Provider, context: str) -> str:
    """The one that kubectl wrote there at its last use. The library could renew it, but it sends
    the client's secret to issuers without looking at their certificate [source:
    kubernetes_asyncio 36.1, config/openid.py].
    """
    token = (provider.config or {}).get("id-token", "")
    if provider.name == "oidc" and token:
        return token
    msg = (
        f"context {context} logs in by the auth-provider {provider.name}, which is of no use here:"
        " make its entry anew with a login program, such as kubelogin, gke-gcloud-auth-plugin"
    )
    raise ConfigError(msg)


async def _header(user: dict[str, Any]) -> Secret[str] | None:
    name = "one"
    config = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": {"server": "http://unused"}}],
        "users": [{"name": name, "user": user}],
    }
    loader = _library("kubernetes_asyncio.config.kube_config").KubeConfigLoader(config)
    configuration = _library("kubernetes_asyncio.client").Configuration()
    await loader.load_and_set(configuration)
    header: str = configuration.api_key.get("BearerToken", "").strip()
    return Secret(header) if header else None


def _plug_in(
    user: _User, folder: Path, cluster: _Cluster, ca: bytes | None, context: str
) -> PlugIn | None:
    program = user.exec
    if program is None:
        return None
    if program.interactive_mode == "Always":
        msg = f"context {context} logs in with {program.command}, which asks a person: use another"
        raise ConfigError(msg)
    command = program.command
    if "/" in command:
        command = str(folder / command)
    return PlugIn(
        command=command,
        args=program.args or (),
        env={one.name: one.value for one in program.env or ()},
        api_version=program.api_version,
        install_hint=program.install_hint,
        cluster=_told(cluster, ca) if program.provide_cluster_info else None,
        context=context,
    )


def _told(cluster: _Cluster, ca: bytes | None) -> dict[str, Any]:
    """What a login program hears of the cluster."""
    told: dict[str, Any] = {"server": cluster.server}
    if cluster.tls_server_name:
        told["tls-server-name"] = cluster.tls_server_name
    if cluster.insecure_skip_tls_verify:
        told["insecure-skip-tls-verify"] = True
    if ca is not None:
        told["certificate-authority-data"] = base64.b64encode(ca).decode()
    if cluster.proxy_url:
        told["proxy-url"] = cluster.proxy_url
    for one in cluster.extensions or ():
        if one.name == _EXTENSION:
            told["config"] = one.extension
    return told


def _acting_as(user: _User) -> Mapping[str, str]:
    if user.act_as_groups:
        raise ConfigError("as-groups is not supported: make an entry that logs in as such a user")
    headers = {"Impersonate-User": user.act_as, "Impersonate-Uid": user.act_as_uid}
    return {name: value for name, value in headers.items() if value}


def _address(text: str, what: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise ConfigError(f"{what} must be an https:// or http:// address")
    return text.rstrip("/")


def _entries(merged: Mapping[str, Any], section: str) -> dict[str, _Entry]:
    return {
        node.value["name"]: _Entry(
            node.value.get(section.removesuffix("s")) or {}, Path(node.path).absolute().parent
        )
        for node in merged.get(section) or ()
    }


def _entry(merged: Mapping[str, Any], what: str, name: str) -> _Entry:
    entries = _entries(merged, f"{what}s")
    if name in entries:
        return entries[name]
    near = get_close_matches(name, entries, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise ConfigError(f"has no {what} {name}{hint} It has: {_names(entries)}")


def _names(entries: Mapping[str, _Entry]) -> str:
    names = sorted(entries)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more if names else "none"
