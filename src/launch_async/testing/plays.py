"""What the runs of the checks do, apart from how a backend makes something do it."""

import shlex
from typing import Literal

import msgspec


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """Shows variables and arguments, prints lines, goes on for a while and ends: in this order."""

    shows: tuple[str, ...] = ()
    """Names of environment variables, printed as `NAME=value`."""
    shows_args: bool = False
    """Whether it prints `args:` and its arguments."""
    prints: tuple[str, ...] = ()
    prints_errors: tuple[str, ...] = ()
    """Lines on stderr, after the others."""
    seconds: float = 0.0
    exit_code: int = 0
    on_term: Literal["end", "ignore", "leave"] = "end"
    """What SIGTERM does: end it, nothing, or make it print `bye` and exit with 7."""

    @property
    def shell(self) -> str:
        """The same as a script for `sh -c SCRIPT ARGUMENTS`."""
        lines: list[str] = []
        if self.on_term != "end":
            action = "" if self.on_term == "ignore" else "echo bye; exit 7"
            lines.append(f"trap {shlex.quote(action)} TERM")
        lines += [f'echo "{name}=${name}"' for name in self.shows]
        if self.shows_args:
            lines.append('echo "args: $0 $*"')
        lines += [f"echo {shlex.quote(line)}" for line in self.prints]
        if self.prints_errors:
            lines.append("sleep 0.2")  # two streams have no order in most backends
        lines += [f"echo {shlex.quote(line)} >&2" for line in self.prints_errors]
        if self.seconds and self.on_term == "end":
            lines.append(f"sleep {self.seconds}")
        elif self.seconds:  # in small steps: a shell hears a signal only between its commands
            steps = round(self.seconds * 10)
            lines.append(f"i=0; while [ $i -lt {steps} ]; do sleep 0.1; i=$((i+1)); done")
        return "; ".join([*lines, f"exit {self.exit_code}"])
