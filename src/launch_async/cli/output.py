"""What a person sees: logs on stderr, one clear line for each error, exit codes."""

import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, TextIO

import anyio
import click
import structlog

from launch_async.domain.errors import AgentUnfit, ConfigError, LaunchError

PREFIX = "launch-async: "
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_UNFIT = 3
EXIT_INTERRUPTED = 130
LOG_LEVELS = ("debug", "info", "warning", "error")


class UsageFault(click.ClickException):
    """A setting is wrong: click prints one line and exits with 2."""

    exit_code = EXIT_CONFIG

    def show(self, file: IO[Any] | None = None) -> None:
        """As all our errors look."""
        click.echo(f"{PREFIX}{self.format_message()}", file=file, err=file is None)


def set_up_logs(*, verbosity: int, log_file: str | None = None) -> None:
    """Logs as text on a terminal and as JSON elsewhere; `log_file` `-` is stdout.

    Raises:
        ConfigError: the file cannot be opened.
    """
    stream = _log_stream(log_file)
    colours = stream.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=28)
            if colours
            else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    set_log_level("debug" if verbosity else "info")


def set_log_level(level: str) -> None:
    """Log what is of this level or graver from now on.

    Raises:
        ConfigError: there is no such level.
    """
    if level not in LOG_LEVELS:
        msg = f"no log level {level!r}; there are {', '.join(LOG_LEVELS)}"
        raise ConfigError(msg)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))


def run_async(main: Callable[[], Awaitable[int]], *, use_uvloop: bool = True) -> None:
    """Run to the end and exit with its code; errors meant for people become one line each."""
    try:
        code = anyio.run(main, backend_options={"use_uvloop": use_uvloop})
    except* LaunchError as group:
        errors = list(_leaves(group))
        for error in errors:
            sys.stderr.write(f"{PREFIX}{error}\n")
        code = max(_code_of(error) for error in errors)
    except* KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _code_of(error: BaseException) -> int:
    match error:
        case ConfigError():
            return EXIT_CONFIG
        case AgentUnfit():
            return EXIT_UNFIT
        case _:
            return EXIT_FAILED


def _leaves(group: BaseExceptionGroup[LaunchError]) -> list[LaunchError]:
    found: list[LaunchError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _log_stream(log_file: str | None) -> TextIO:
    if log_file is None:
        return sys.stderr
    if log_file == "-":
        return sys.stdout
    try:
        return Path(log_file).open("a", encoding="utf-8")
    except OSError as error:
        msg = f"the log file {log_file} cannot be opened ({error.strerror})"
        raise ConfigError(msg) from error
