"""Which git remotes are fetched from and what names a commit: rules only, nothing is run.

```
https://[user:password@]host[:port]/path     ssh://[user@]host[:port]/path     user@host:path
```
Whatever else git understands (`file://`, `ext::`, a path, an option) is refused by not being here.
"""

import re
from typing import Annotated, Self
from urllib.parse import unquote

import msgspec

from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.secret import Secret

_SHOWN = 200
_HOST = r"(?:[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_PORT = r"(?::[0-9]{1,5})?"
_USER = r"[A-Za-z0-9_][\w.+-]*"
_NAME = r"[^\x00-\x20\x7f]+"
_HTTP = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_HOST}{_PORT})(?P<path>/{_NAME})",
    re.ASCII | re.IGNORECASE,
)
_SSH = re.compile(
    rf"ssh://(?P<rest>(?:{_USER}@)?(?P<host>{_HOST}){_PORT}/{_NAME})", re.ASCII | re.IGNORECASE
)
_SCP = re.compile(rf"{_USER}@(?P<host>{_HOST}):(?!-){_NAME}", re.ASCII)
_HOST_AND_PORT = re.compile(_HOST + _PORT, re.ASCII)
_HTTP_LOGIN = re.compile(r"(https?://)([^/]*)@(.*)", re.IGNORECASE | re.DOTALL)
_LOGINS = re.compile(r"(https?://)[^/\s]*@", re.IGNORECASE)
_PASSWORDS = re.compile(r"(://[^/\s:@]*):[^/\s]*@")
_UNTIL_LAST_AT = re.compile(r"(://).*@", re.DOTALL)

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.@]|[/.]$")
MAX_REF = 255
DEFAULT_BRANCH = "HEAD"
"""What a job without a commit means: the remote's default branch."""


class GitLogin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to log in at one git server over https."""

    host: str
    """HOST or HOST:PORT, as in the remote."""
    username: str
    """Where the password is a token: whatever the server wants to see, such as `oauth2`."""
    password_file: str = ""
    """File of the password or token; read for each fetch, so that it may be renewed."""
    password_env: str = ""
    """Variable of the agent's environment with the password or token, instead of a file."""

    def __post_init__(self) -> None:
        """What the fields say only together."""
        if not _HOST_AND_PORT.fullmatch(self.host):
            msg = f"host {self.host!r} must be HOST or HOST:PORT"
            raise ValueError(msg)
        if bool(self.password_file) == bool(self.password_env):
            msg = f"the login for {self.host} needs either password_file or password_env"
            raise ValueError(msg)


class GitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How git jobs are fetched. What is not set is as the agent's user has set up git and ssh."""

    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0
    """How long one fetch may take, with its submodules."""
    ssh_key_file: str = ""
    """Private key for ssh remotes, without a passphrase; none other is tried then."""
    known_hosts_file: str = ""
    """Host keys of ssh servers; unknown servers are refused then."""
    ca_file: str = ""
    """Certificates of all authorities that https servers are checked against, instead of the
    machine's own."""
    credentials: tuple[GitLogin, ...] = ()
    """Logins for https remotes, by host."""
    allow_http: bool = False
    """Whether http:// remotes are fetched from; whoever is between can change the code then."""


class GitRemote(msgspec.Struct, frozen=True, kw_only=True):
    """A remote that may be fetched from."""

    url: str
    """As git gets it: without a login over http."""
    host: str
    server: str | None = None
    """`https://HOST[:PORT]`, for which logins are kept; None over ssh."""
    login: Secret[str] | None = None
    """`USER:PASSWORD` that the remote was written with."""

    @classmethod
    def parse(cls, text: str, *, allow_http: bool = False) -> Self:
        """The remote that a job names.

        Raises:
            ItemError: git must not be given this.
        """
        remote, login = split_login(text.strip())
        http = _HTTP.fullmatch(remote)
        if http is not None:
            scheme = http["scheme"].lower()
            if scheme == "http" and not allow_http:
                raise _refused(text, "http:// can be read and changed on its way; use https://")
            host, url = http["host"].lower(), f"{scheme}://{http['host']}{http['path']}"
            return cls(url=url, host=host, server=f"{scheme}://{host}", login=login)
        ssh = _SSH.fullmatch(remote)
        if ssh is not None:
            return cls(url=f"ssh://{ssh['rest']}", host=ssh["host"].lower())
        scp = _SCP.fullmatch(remote)
        if scp is not None:
            return cls(url=remote, host=scp["host"].lower())
        raise _refused(text, "write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH")


def split_login(remote: str) -> tuple[str, Secret[str] | None]:
    """An http(s) remote without what stands before the `@`, and that as `USER:PASSWORD`.

    A user name without a password lets nobody in: it is left out.
    """
    found = _HTTP_LOGIN.fullmatch(remote)
    if found is None:
        return remote, None
    user, _, password = found[2].partition(":")
    login = Secret(f"{unquote(user)}:{unquote(password)}") if password else None
    return found[1] + found[3], login


def is_commit(text: str) -> bool:
    """Whether this is a commit's whole hash, which names the same content for ever."""
    return _COMMIT.fullmatch(text) is not None


def is_short_commit(text: str) -> bool:
    """Whether this may be the beginning of a commit's hash."""
    return _SHORT_COMMIT.fullmatch(text) is not None


def checked_ref(text: str) -> str:
    """A commit, branch or tag as the job names it, harmless for git.

    Raises:
        ItemError: it is no name that git gives to anything.
    """
    if not text or len(text) > MAX_REF or _NO_REF.search(text):
        msg = f"{text[:_SHOWN]!r} is no commit, branch or tag of git; create the job again"
        raise ItemError(msg, reason=Reason.JOB_INVALID)
    return text


def masked(text: str) -> str:
    """The text without the logins in its URLs."""
    return _PASSWORDS.sub(r"\1:***@", _LOGINS.sub(r"\1***@", text))


def _refused(remote: str, remedy: str) -> ItemError:
    shown = _UNTIL_LAST_AT.sub(r"\1***@", remote)[:_SHOWN]
    return ItemError(f"the git remote {shown!r} is refused: {remedy}", reason=Reason.JOB_INVALID)
