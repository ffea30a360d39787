"""TLS to one API server: what its configuration says, and the context that aiohttp takes."""

import os
import ssl
from pathlib import Path

import msgspec

from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret
from launch_async.wire.network import CA_VARIABLES


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to trust and what to show, all in PEM."""

    ca: bytes | None = None
    """None: the usual CAs."""
    certificate: bytes | None = None
    key: Secret[bytes] | None = None
    server_name: str | None = None
    """That its certificate must have, where it is not the address' own."""
    verify: bool = True


def context_of(tls: Tls, *, ca_file: Path | None) -> ssl.SSLContext:
    """A context for these; it reads the machine's CAs, which takes a while: not on the loop.

    `ca_file` are the CAs that the environment names, for a cluster that names none.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    context = _trusting(tls, ca_file)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate is not None and tls.key is not None:
        try:
            _show(context, tls.certificate, tls.key)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "reason", None) or type(error).__name__
            msg = f"the client certificate and its key cannot be used ({why}): log in anew"
            raise ConfigError(msg) from None
    return context


def _trusting(tls: Tls, ca_file: Path | None) -> ssl.SSLContext:
    if tls.ca is None:
        try:
            return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except (OSError, ssl.SSLError) as error:
            msg = f"{ca_file} is not a readable bundle of CA certificates; see {CA_VARIABLES[0]}"
            raise ConfigError(msg) from error
    try:
        context = ssl.create_default_context(cadata=tls.ca.decode("ascii"))
    except (UnicodeDecodeError, ssl.SSLError, ValueError) as error:
        msg = "certificate-authority(-data) of the cluster holds no certificates in PEM"
        raise ConfigError(msg) from error
    # Clusters' own CAs often lack an identifier that Python 3.13 demands and Go does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _show(context: ssl.SSLContext, certificate: bytes, key: Secret[bytes]) -> None:
    """OpenSSL reads keys from files alone; this one is in memory, so that no kill leaves it."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(certificate.rstrip() + b"\n" + key.reveal())
        file.flush()
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
