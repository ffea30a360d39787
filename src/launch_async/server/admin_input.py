"""What the admin API is given, and refusals that name the field which is wrong."""

import re
from collections.abc import Iterable
from typing import Final, Literal, TypeVar

import msgspec
from aiohttp import web

from launch_async.server.access import ROLES, Role
from launch_async.server.errors import ApiError
from launch_async.server.ids import read_number
from launch_async.server.projects import check_name
from launch_async.server.users import KEY_BYTES

MAX_BODY_BYTES: Final = 64 * 1024
MAX_EMAIL: Final = 320
MAX_KEY: Final = 256
MAX_DESCRIPTION: Final = 256
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
ADMIN_KEY_NAME: Final = "admin key"
"""Who acts when no user does; no user has this name."""

FIELD = re.compile(r"field `([^`]*)`")
PATH = re.compile(r"at `\$\.?([^`]*)`")
Body = TypeVar("Body")
RoleWord = Literal["viewer", "member", "admin"]


class FieldFault(ApiError):
    """A refusal of one part of what was sent."""

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message, status=422)
        self.field = field


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /users."""

    username: str
    email: str | None = None
    api_key: str | None = None
    admin: bool = False
    service: bool = False

    def check(self) -> None:
        """Raise a FieldFault for what no user can have."""
        check_new_name("user", self.username, "username")
        if self.username == ADMIN_KEY_NAME:
            raise FieldFault(f"the name {ADMIN_KEY_NAME!r} is the admin key's", "username")
        if self.email is not None:
            local, _, domain = self.email.rpartition("@")
            plain = self.email.isprintable() and " " not in self.email
            if not (local and domain and plain and len(self.email) <= MAX_EMAIL):
                raise FieldFault(f"{self.email!r} is not an address such as a@example.com", "email")
        check_key(self.api_key)


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /users/{username}/keys, all of it optional."""

    description: str | None = None
    api_key: str | None = None

    def check(self) -> None:
        """Raise a FieldFault for what no key can be."""
        if self.description is not None and len(self.description) > MAX_DESCRIPTION:
            raise FieldFault(f"it has at most {MAX_DESCRIPTION} characters", "description")
        check_key(self.api_key)


class NewMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of a new team's members."""

    username: str
    role: RoleWord = "member"


class NewTeam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /teams."""

    name: str
    members: list[NewMember] = []

    def check(self) -> None:
        """Raise a FieldFault for what no team can have."""
        check_new_name("team", self.name, "name")
        seen: set[str] = set()
        for number, member in enumerate(self.members):
            if member.username in seen:
                field = f"members[{number}].username"
                raise FieldFault(f"{member.username!r} is named twice", field)
            seen.add(member.username)


class Membership(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /teams/{name}/members/{username}."""

    role: RoleWord

    def as_role(self) -> Role:
        """Return the role."""
        return ROLES[self.role]


async def read_body(request: web.Request, kind: type[Body], *, optional: bool = False) -> Body:
    """Return the body as this kind; 413, 400 or a FieldFault when it is none.

    An empty body is `{}` where everything in it is optional.
    """
    body = b""
    async for chunk in request.content.iter_chunked(MAX_BODY_BYTES):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(f"the body has more than {MAX_BODY_BYTES} bytes", status=413)
    try:
        return msgspec.json.decode(b"{}" if optional and not body.strip() else body, type=kind)
    except msgspec.ValidationError as error:
        raise FieldFault(str(error), _field_of(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the body is not JSON: {error}") from error


def read_query(request: web.Request, known: Iterable[str]) -> dict[str, str]:
    """Return the parameters of an address; a FieldFault for one that is not known here."""
    allowed = set(known)
    for name in request.query:
        if name not in allowed:
            words = ", ".join(sorted(allowed)) or "none"
            raise FieldFault(f"unknown parameter {name!r}; there are: {words}", name)
    return dict(request.query)


def read_page(query: dict[str, str]) -> tuple[int, int]:
    """Return where a page begins and how long it is."""
    after = read_number(query.get("after", "0"))
    limit = read_number(query.get("limit", str(DEFAULT_PAGE)))
    if after is None:
        raise FieldFault("this is the `next` of the page before", "after")
    if limit is None or not 1 <= limit <= MAX_PAGE:
        raise FieldFault(f"a page has 1 to {MAX_PAGE} entries", "limit")
    return after, limit


def read_flag(query: dict[str, str], name: str) -> bool:
    """Return whether a parameter is set to true."""
    value = query.get(name, "false")
    if value not in {"true", "false"}:
        raise FieldFault("this is true or false", name)
    return value == "true"


def check_new_name(kind: str, name: str, field: str) -> None:
    """Raise a FieldFault for a name that nobody can have."""
    try:
        check_name(kind, name)
    except ApiError as error:
        raise FieldFault(error.message, field) from error


def check_key(key: str | None) -> None:
    """Raise a FieldFault for a key that the client would not send; its text stays unsaid."""
    if key is None:
        return
    plain = key.isascii() and key.isprintable() and " " not in key
    if not plain or not 2 * KEY_BYTES <= len(key) <= MAX_KEY:
        least = 2 * KEY_BYTES
        raise FieldFault(f"a key has {least} to {MAX_KEY} plain characters, no blanks", "api_key")


def _field_of(text: str) -> str | None:
    """Return the path of what is wrong by msgspec's words: `members[0].role`, for example."""
    path, field = PATH.search(text), FIELD.search(text)
    parts = [found.group(1) for found in (path, field) if found is not None]
    return ".".join(part for part in parts if part) or None
