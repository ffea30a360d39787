"""`launch-async up`: control plane and agent in one process, and a job to try them with."""

import json
import os
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec
from click.core import ParameterSource
from rich.console import Console

from launch_async.agent.agent import Agent
from launch_async.cli.addresses import address_of
from launch_async.cli.kinds import Folder
from launch_async.cli.output import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    UsageFault,
    run_async,
    set_up_logs,
)
from launch_async.cli.progress import plain_console, show, summary
from launch_async.cli.running import run_with_admin
from launch_async.cli.signals import on_signals
from launch_async.compose.up import DOCKER_QUEUE, PROCESS_QUEUE, Embedded, embedded
from launch_async.config.admin import AGENT_VARIABLE
from launch_async.config.model import DEFAULT_ADMIN, AgentSection
from launch_async.domain.errors import ConfigError
from launch_async.kit.heap import settle_heap
from launch_async.sdk.follow import follow
from launch_async.server.settings import Settings

FOLLOW_SECONDS = 0.5
GRACE_SECONDS = AgentSection().grace


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The job that `up` is asked to run."""

    folder: Path | None
    image: str | None
    run_config: dict[str, Any]

    @property
    def project(self) -> str:
        """Where its run goes: named after the folder or the image."""
        if self.folder is not None:
            return self.folder.resolve().name
        return re.split("[:@]", (self.image or "").rsplit("/", 1)[-1])[0]


@click.command(context_settings={"show_default": True})
@click.option(
    "--data",
    type=Folder(),
    default=Path(".launch-async"),
    help="Folder of everything: database, files, the agent's state.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8383, help="Port on 127.0.0.1.")
@click.option("--admin", default=DEFAULT_ADMIN, help="HOST:PORT of the agent's admin endpoint.")
@click.option("--run", "folder", type=click.Path(path_type=Path), help="Run this folder's code.")
@click.option("--run-image", "image", help="Run this image instead.")
@click.option("--entry-point", default="python train.py", help="Command of --run.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a config value."
)
@click.option("--keep", is_flag=True, help="Stay up when the job has ended.")
@click.option("-v", "--verbose", count=True, help="More logs.")
def up(
    *,
    data: Path,
    port: int,
    admin: str,
    folder: Path | None,
    image: str | None,
    entry_point: str,
    settings: tuple[str, ...],
    keep: bool,
    verbose: int,
) -> None:
    """Start control plane and agent on this machine; with --run, try them with a job."""
    _refuse_flags_without_effect(folder=folder, image=image)
    trial = Trial(folder=folder, image=image, run_config=_parsed(settings))
    on_trial = folder is not None or image is not None
    command = _split(entry_point)
    where = Settings(data_dir=data.absolute(), host="127.0.0.1", port=port)

    async def main() -> int:
        async with embedded(where, admin=admin, environ=os.environ) as running:
            return await _run(
                running,
                trial if on_trial else None,
                admin=admin,
                keep=keep,
                entry_point=command,
            )

    try:
        if admin:
            address_of(admin, "--admin")
        log_file = _log_file(data) if on_trial else None
        set_up_logs(verbosity=verbose, log_file=log_file)
    except ConfigError as error:
        raise UsageFault(str(error)) from error
    run_async(main)


async def _run(
    running: Embedded, trial: Trial | None, *, admin: str, keep: bool, entry_point: list[str]
) -> int:
    console = plain_console()
    code = EXIT_INTERRUPTED if trial else 0
    settle_heap()
    if trial is None or keep:
        _introduce(running, console, admin=admin)
    async with anyio.create_task_group() as tasks:
        await tasks.start(on_signals, partial(_stop, running.agent, console))
        if trial is None:
            await _agent(running, admin)
        else:
            tasks.start_soon(_agent_alone, running, admin, tasks.cancel_scope, name="agent")
            code = await _try(running, trial, console, entry_point)
            if keep:
                console.print("staying up; Ctrl-C ends it")
            else:
                running.agent.stop("the job has ended")
            await anyio.sleep_forever()  # until the agent has ended
        tasks.cancel_scope.cancel()
    return code


def _stop(agent: Agent, console: Console, cause: str) -> None:
    open_items = len(agent.view().items)
    if open_items and agent.view().state != "stopping":
        console.print(
            f"stopping: {open_items} open items may end within {GRACE_SECONDS:.0f} s; once more"
            " lets them go (they keep running, the next start takes them over)"
        )
    agent.stop(cause)


async def _agent(running: Embedded, admin: str) -> None:
    await run_with_admin(running.agent, admin, setting="--admin", token=running.admin_token)


async def _agent_alone(running: Embedded, admin: str, scope: anyio.CancelScope) -> None:
    await _agent(running, admin)
    scope.cancel()


async def _try(running: Embedded, trial: Trial, console: Console, entry_point: list[str]) -> int:
    began = anyio.current_time()
    client = running.client
    project = trial.project
    spec: dict[str, Any] = {"project": project, "overrides": {"run_config": trial.run_config}}
    if trial.folder is not None:
        queue = PROCESS_QUEUE
        spec["job"] = await client.create_code_job(
            trial.folder, project=project, name=f"{project}-job", entrypoint=entry_point
        )
        console.print(f"job      {spec['job']}")
    else:
        queue = DOCKER_QUEUE
        spec["docker"] = {"docker_image": trial.image}
        console.print(f"image    {trial.image}")
    item_id = await client.push(queue, spec)
    console.print(f"queue    {client.entity}/{queue}")
    changes = follow(
        client, queue=queue, item_id=item_id, project=project, interval_seconds=FOLLOW_SECONDS
    )
    end = await show(changes, console)
    url = f"{running.url}/{client.entity}/{project}/runs/{end.item.run_id}"
    seconds = anyio.current_time() - began
    return 0 if summary(end, url=url, console=console, seconds=seconds) else EXIT_FAILED


def _introduce(running: Embedded, console: Console, *, admin: str) -> None:
    key_file, token_file = (shlex.quote(str(p)) for p in (running.key_file, running.token_file))
    console.print(f"control plane  {running.url}")
    console.print(f"queues         {PROCESS_QUEUE} (local processes), {DOCKER_QUEUE} (containers)")
    console.print(f"to use it      export WANDB_BASE_URL={running.url}")
    console.print(f"               export WANDB_API_KEY=$(cat {key_file})", soft_wrap=True)
    if admin:
        flag = "" if admin == DEFAULT_ADMIN else f" --admin {admin}"
        console.print(f"to steer it    export {AGENT_VARIABLE}=$(cat {token_file})", soft_wrap=True)
        console.print(f"               launch-async agent top{flag}", soft_wrap=True)
    console.print("in a browser   any user name, and the key as the password")


def _log_file(data: Path) -> str:
    """Logs would disturb the display: they go beside the data."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the data folder {data} cannot be made ({error.strerror}); give another with --data"
        raise ConfigError(msg) from error
    return str(data / "up.log")


def _refuse_flags_without_effect(*, folder: Path | None, image: str | None) -> None:
    if folder is not None and image is not None:
        raise click.UsageError("give --run or --run-image, not both")
    if image == "":
        raise click.UsageError("--run-image is empty; give an image")
    needs = {} if folder is not None else {"entry_point": "--run"}
    if folder is None and image is None:
        needs |= dict.fromkeys(("settings", "keep"), "--run or --run-image")
    context = click.get_current_context()
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in needs and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} needs {needs[param.name]}")


def _split(entry_point: str) -> list[str]:
    try:
        words = shlex.split(entry_point)
    except ValueError as error:
        msg = f"--entry-point {entry_point!r} cannot be split into words ({error})"
        raise click.UsageError(msg) from error
    if not words:
        raise click.UsageError("--entry-point is empty; give a command")
    return words


def _parsed(settings: tuple[str, ...]) -> dict[str, Any]:
    """Values are JSON where they parse as such, else text."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--set {setting!r} must look like KEY=VALUE")
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed
