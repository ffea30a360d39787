"""What the environment says of the way to an address: its proxy, and the CAs to trust."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from launch_async.domain.errors import AgentUnfit, ConfigError
from launch_async.kit.addresses import is_loopback

CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def proxy_for(url: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for this address; loopback has none.

    aiohttp's own `trust_env` would also read netrc and then refuse our Authorization header.
    """
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = getproxies().get(parts.scheme)
    if proxy and urlsplit(proxy).scheme not in {"http", "https"}:
        msg = f"{parts.scheme.upper()}_PROXY must be an http:// address; other kinds do not work"
        raise AgentUnfit(msg)
    return proxy


def tls_of(ca_file: Path | None) -> ssl.SSLContext | bool:
    """What aiohttp takes as its TLS: the usual CAs, or those of this bundle alone.

    Raises:
        ConfigError: it is not a bundle of certificates.
    """
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        msg = f"{ca_file} is not a readable bundle of CA certificates; see {CA_VARIABLES[0]}"
        raise ConfigError(msg) from error


def ca_file_of(environ: Mapping[str, str]) -> Path | None:
    """The custom CA bundle that the environment names, if any."""
    named = next((environ[name] for name in CA_VARIABLES if environ.get(name)), None)
    return Path(named) if named else None
