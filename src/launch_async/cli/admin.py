"""`launch-async admin`: users, their keys, teams and the audit trail of a server, over HTTP."""

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch_async.cli.output import UsageFault, run_async
from launch_async.config.admin import ADMIN_KEY_VARIABLE, MAX_FILE_BYTES, find_admin_key
from launch_async.config.login import is_address
from launch_async.domain.errors import ConfigError
from launch_async.domain.secret import Secret
from launch_async.sdk.admin import AdminClient, Json
from launch_async.wire.network import ca_file_of

URL_VARIABLE = "LAUNCH_ASYNC_URL"
DEFAULT_URL = "http://127.0.0.1:8383"
WIDE = 1000  # columns of what is no terminal: lines are not broken there
ROLES = ("viewer", "member", "admin")


class Session(msgspec.Struct, frozen=True):
    """A server to ask, and how to show what it says."""

    client: AdminClient
    as_json: bool

    def show(self, columns: Sequence[str], rows: Sequence[Json]) -> None:
        """Print rows: a table for people, a JSON list for programs."""
        if self.as_json:
            _print_json(rows)
            return
        terminal = sys.stdout.isatty()
        table = Table(box=SIMPLE if terminal else None, pad_edge=False)
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*(Text(_words(row.get(column))) for column in columns))
        Console(width=None if terminal else WIDE).print(table)

    def done(self, answer: Json, said: str, secret: str | None = None) -> None:
        """Say what was done: on stderr, so that a pipe gets the secret alone."""
        if self.as_json:
            _print_json(answer)
            return
        click.echo(said, err=True)
        if secret is not None:
            click.echo(secret)


class Connection(msgspec.Struct, frozen=True):
    """Where to ask and with what, as far as it was said so far."""

    url: str | None = None
    admin_key_file: Path | None = None
    as_json: bool = False

    def under(self, outer: "Connection") -> "Connection":
        """This one, with what was said before it where it says nothing."""
        return Connection(
            url=self.url or outer.url,
            admin_key_file=self.admin_key_file or outer.admin_key_file,
            as_json=self.as_json or outer.as_json,
        )


OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--url", help=f"The server. Default: {URL_VARIABLE}, else {DEFAULT_URL}."),
    click.option(
        "--admin-key-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"File of the admin key. Default: the variable {ADMIN_KEY_VARIABLE}.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
)


def asking(action: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a command of an action: it has a session, and the options that each command takes."""

    @wraps(action)
    def run(*, url: str | None, admin_key_file: Path | None, as_json: bool, **given: Any) -> None:
        outer = click.get_current_context().find_object(Connection) or Connection()
        connection = Connection(url, admin_key_file, as_json).under(outer)
        try:
            base_url, key = _login(connection)
        except ConfigError as error:
            raise UsageFault(str(error)) from error

        async def main() -> int:
            ca_file = ca_file_of(os.environ)
            async with AdminClient.open(
                base_url=base_url, admin_key=key, ca_file=ca_file
            ) as client:
                await action(Session(client, connection.as_json), **given)
            return 0

        run_async(main)

    return with_options(run)


def with_options(group: Callable[..., None]) -> Callable[..., None]:
    """Let a group take the options that each command takes, for those who write them first."""
    for option in OPTIONS:
        group = option(group)
    return group


@click.group()
@with_options
@click.pass_context
def admin(
    context: click.Context, url: str | None, admin_key_file: Path | None, as_json: bool
) -> None:
    """Manage a server's users, keys and teams, and read its audit trail.

    The admin key is never an argument. Exit codes: 0 done, 1 the server said no or cannot be
    reached, 2 a setting is wrong.
    """
    context.obj = Connection(url, admin_key_file, as_json)


@admin.group()
def user() -> None:
    """People and service accounts."""


@user.command("create")
@click.argument("name")
@click.option("--email")
@click.option("--admin", is_flag=True, help="May use the admin API with their own key.")
@click.option("--service", is_flag=True, help="A service account: logs runs for others.")
@click.option("--key-stdin", is_flag=True, help="Read the user's API key; else one is made.")
@asking
async def create_user(
    session: Session, name: str, *, email: str | None, admin: bool, service: bool, key_stdin: bool
) -> None:
    """Make a user; prints their API key, which is shown this once."""
    body: Json = {"username": name, "admin": admin, "service": service}
    if email is not None:
        body["email"] = email
    if key_stdin:
        body["api_key"] = sys.stdin.readline(MAX_FILE_BYTES).strip()
    made = await session.client.call("POST", "users", body=body)
    if key_stdin:
        session.done(made, f"user {name!r} made, with the key that was given")
    else:
        told = f"user {name!r} made; the API key, shown this once:"
        session.done(made, told, made["api_key"])


@user.command("list")
@asking
async def list_users(session: Session) -> None:
    """Show every user."""
    found = [each async for each in session.client.pages("users", "users")]
    session.show(("username", "email", "admin", "service", "created_at"), found)


@user.command("delete")
@click.argument("name")
@click.option("--force", is_flag=True, help="Delete the user's own runs and artifacts too.")
@asking
async def delete_user(session: Session, name: str, *, force: bool) -> None:
    """Delete a user with their keys; what they made in teams stays."""
    query = {"force": "true"} if force else None
    answer = await session.client.call("DELETE", "users", name, query=query)
    session.done(answer, f"user {name!r} deleted")


@admin.group()
def key() -> None:
    """API keys of users."""


@key.command("create")
@click.argument("username")
@click.option("--description")
@asking
async def create_key(session: Session, username: str, *, description: str | None) -> None:
    """Make a key for a user; prints it, which is done this once."""
    body = {} if description is None else {"description": description}
    made = await session.client.call("POST", "users", username, "keys", body=body)
    told = f"key {made['id']} of {username!r} made; it is shown this once:"
    session.done(made, told, made["api_key"])


@key.command("list")
@click.argument("username")
@asking
async def list_keys(session: Session, username: str) -> None:
    """Show a user's keys in force: what they end with, never the keys."""
    found = [each async for each in session.client.pages("keys", "users", username, "keys")]
    session.show(("id", "hint", "description", "created_at"), found)


@key.command("revoke")
@click.argument("username")
@click.argument("key_id")
@asking
async def revoke_key(session: Session, username: str, key_id: str) -> None:
    """Refuse a key from now on."""
    answer = await session.client.call("DELETE", "users", username, "keys", key_id)
    session.done(answer, f"key {key_id} of {username!r} revoked")


@admin.group()
def team() -> None:
    """Teams and their members."""


@team.command("create")
@click.argument("name")
@click.option(
    "--member", "members", multiple=True, metavar="USER[:ROLE]", help="Give it again for more."
)
@asking
async def create_team(session: Session, name: str, *, members: tuple[str, ...]) -> None:
    """Make a team; roles are viewer, member (the default) and admin."""
    body = {"name": name, "members": [_member(text) for text in members]}
    made = await session.client.call("POST", "teams", body=body)
    session.done(made, f"team {name!r} made")


@team.command("list")
@click.argument("name", required=False)
@asking
async def list_teams(session: Session, name: str | None) -> None:
    """Show every team, or the members of one."""
    if name is None:
        found = [each async for each in session.client.pages("teams", "teams")]
        session.show(("name", "created_at"), found)
    else:
        answer = await session.client.call("GET", "teams", name)
        session.show(("username", "role"), answer["members"])


@team.command("delete")
@click.argument("name")
@click.option("--force", is_flag=True, help="Delete the team's runs, artifacts and queues too.")
@asking
async def delete_team(session: Session, name: str, *, force: bool) -> None:
    """Delete a team; its members stay users."""
    query = {"force": "true"} if force else None
    answer = await session.client.call("DELETE", "teams", name, query=query)
    session.done(answer, f"team {name!r} deleted")


@team.command("add")
@click.argument("name")
@click.argument("username")
@click.option("--role", type=click.Choice(ROLES), default="member", show_default=True)
@asking
async def add_member(session: Session, name: str, username: str, *, role: str) -> None:
    """Let a user into a team, or change their role in it."""
    answer = await session.client.call(
        "PUT", "teams", name, "members", username, body={"role": role}
    )
    session.done(answer, f"{username!r} is {role} of {name!r}")


@team.command("remove")
@click.argument("name")
@click.argument("username")
@asking
async def remove_member(session: Session, name: str, username: str) -> None:
    """Take a user out of a team."""
    answer = await session.client.call("DELETE", "teams", name, "members", username)
    session.done(answer, f"{username!r} is no member of {name!r} any more")


@admin.command()
@click.option("--entity", help="Only what was done in this entity.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@asking
async def audit(session: Session, *, entity: str | None, limit: int) -> None:
    """Show who changed what, the newest first."""
    query = {"limit": str(limit)} | ({} if entity is None else {"entity": entity})
    page = await session.client.call("GET", "audit", query=query)
    session.show(("at", "username", "entity", "action", "subject", "details"), page["entries"])


def _login(connection: Connection) -> tuple[str, Secret[str]]:
    base_url = (connection.url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
    if not is_address(base_url):
        raise ConfigError(f"--url or {URL_VARIABLE} must look like http://HOST:PORT")
    key = find_admin_key(connection.admin_key_file, os.environ)
    if key is None:
        msg = f"no admin key: set {ADMIN_KEY_VARIABLE}, or name its file by --admin-key-file"
        raise ConfigError(msg)
    return base_url, key


def _member(text: str) -> Json:
    username, _, role = text.partition(":")
    if role not in {"", *ROLES}:
        raise ConfigError(f"--member is {text!r}; it must look like USER or USER:viewer")
    return {"username": username, "role": role or "member"}


def _words(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else ""
        case dict():
            return " ".join(f"{name}={_words(part)}" for name, part in value.items())
        case list():
            return ",".join(_words(part) for part in value)
        case _:
            return str(value)


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())
