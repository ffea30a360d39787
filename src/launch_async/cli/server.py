"""`launch-async server`: the control plane."""

import os
from pathlib import Path

import anyio
import click
import structlog

from launch_async.cli.addresses import address_of
from launch_async.cli.kinds import Folder
from launch_async.cli.output import UsageFault, run_async, set_up_logs
from launch_async.cli.signals import on_signals
from launch_async.compose.server import KEY_FILE, has_users, local_key, open_server
from launch_async.config.admin import ADMIN_KEY_VARIABLE, find_admin_key
from launch_async.config.login import is_address
from launch_async.domain.errors import ConfigError, cannot_listen
from launch_async.kit.heap import settle_heap
from launch_async.server.app import serve
from launch_async.server.settings import Settings, check_resource_type

NO_PUBLIC_URL = (
    "--public-url must look like https://HOST:PORT/PATH, without user, password or query"
)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@click.command(context_settings={"show_default": True})
@click.option("--listen", default="127.0.0.1:8383", help="HOST:PORT; port 0 takes a free one.")
@click.option(
    "--data",
    type=Folder(),
    default=Path(".launch-async"),
    help="Folder of the database and the files.",
)
@click.option(
    "--database-url",
    envvar="LAUNCH_ASYNC_DATABASE_URL",
    show_envvar=True,
    help="postgresql://USER@HOST:PORT/DATABASE; one with a password belongs into the variable, "
    "as arguments are no secret. Default: SQLite in the folder.",
)
@click.option("--public-url", help="Address in links. Default: as the client asked.")
@click.option(
    "--admin-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File of the key that opens the admin API. Default: the variable {ADMIN_KEY_VARIABLE}; "
    "without either there is no admin API.",
)
@click.option("--no-run-keys", is_flag=True, help="Give launched runs no keys of their own.")
@click.option(
    "--extra-resource-type",
    "extra_resource_types",
    multiple=True,
    metavar="NAME",
    envvar="LAUNCH_ASYNC_EXTRA_RESOURCE_TYPES",
    show_envvar=True,
    help="Resource type of a plug-in that queues may have; give it again for more.",
)
@click.option("-v", "--verbose", count=True, help="More logs.")
def server(
    *,
    listen: str,
    data: Path,
    database_url: str | None,
    public_url: str | None,
    admin_key_file: Path | None,
    no_run_keys: bool,
    extra_resource_types: tuple[str, ...],
    verbose: int,
) -> None:
    """Serve queues, jobs, agents and runs to the wandb client.

    Without an admin key the first start makes the user `local`, whose key is kept in DATA/api-key.
    """

    try:
        host, port = address_of(listen, "--listen")
        admin_key = find_admin_key(admin_key_file, os.environ)
        if public_url is not None and not is_address(public_url):
            raise ConfigError(NO_PUBLIC_URL)
        further = tuple(map(check_resource_type, extra_resource_types))
    except ConfigError as error:
        raise UsageFault(str(error)) from error
    settings = Settings(
        data_dir=data.absolute(),
        host=host,
        port=port,
        database_url=database_url,
        public_url=public_url and public_url.rstrip("/"),
        admin_key=admin_key,
        run_keys=not no_run_keys,
        extra_resource_types=further,
    )

    async def main() -> int:
        return await _serve(settings)

    set_up_logs(verbosity=verbose)
    run_async(main)


async def _serve(settings: Settings) -> int:
    async with open_server(settings) as services, anyio.create_task_group() as tasks:
        settle_heap()
        if settings.admin_key is None:
            await local_key(services, settings.data_dir)
        nobody = not await has_users(services)

        def stop(cause: str) -> None:
            log.info("stopping", cause=cause)
            tasks.cancel_scope.cancel()

        def started(url: str) -> None:
            key_file = settings.data_dir / KEY_FILE
            where = f", key in {key_file}" if key_file.exists() else ""
            click.echo(f"serving on {url}{where}")
            if nobody:
                click.echo(
                    "there is no user yet; make the first, with the admin key (--admin-key-file or "
                    f"{ADMIN_KEY_VARIABLE}): launch-async admin --url {url} user create NAME"
                )

        await tasks.start(on_signals, stop)
        try:
            await serve(services, settings, started=started)
        except OSError as error:
            address = f"{settings.host}:{settings.port}"
            raise cannot_listen(address, error, "--listen") from error
    return 0
