"""What opens the agent's machine to containers: refused, unless the agent's operator allows it.

W&B's agent refuses these keys without exception (launch-features.md D2), though its documentation
still shows some of them; older agents hand all of them to `docker run`. Here the operator says in
`agent.docker` which of them queues may use, which folders may be mounted, and which of the agent's
variables jobs may see. Whether an *item* may change what its queue says is domain/policy.py's.
"""

import fnmatch
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from launch_async.adapters.runners.docker.values import (
    devices,
    invalid,
    text,
    texts,
)
from launch_async.domain.errors import ItemError, Reason

Pull = Literal["missing", "always", "never"]

IGNORED = frozenset({"rm", "detach", "d", "init", "interactive", "i", "tty", "t"})
"""Flags of older examples that are about the command line, or that every container has."""
NEVER = {
    "env-file": "jobs get variables by `env`",
    "restart": "the agent starts each run once",
    "entrypoint": "give the item an entry point",
    "cidfile": "the agent knows its containers",
    "volumes-from": "mount the volume by `volume`",
    "mount": "write it as `volume`: SOURCE:/target[:ro]",
}


class VolumeRule(msgspec.Struct, frozen=True):
    """A folder of the engine's machine that may be mounted, with all that is below it."""

    folder: str
    read_only: bool = False

    @classmethod
    def parse(cls, rule: str) -> "VolumeRule":
        """`/folder` or `/folder:ro`. Raises ValueError, whose text names the fault."""
        folder, _, mode = rule.partition(":")
        if not folder.startswith("/") or mode not in ("", "ro", "rw"):
            msg = f"{rule!r} must look like /folder or /folder:ro"
            raise ValueError(msg)
        return cls(posixpath.normpath(folder), mode == "ro")


class DockerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator allows."""

    allow: frozenset[str] = frozenset()
    """Keys of `OPENING` that resource configs may use; `volume` for named volumes."""
    volumes: tuple[VolumeRule, ...] = ()
    networks: frozenset[str] = frozenset()
    """Names of networks beside host, bridge and none."""
    env: tuple[str, ...] = ()
    """Names, or patterns such as `AWS_*`, of the agent's variables that `env: [NAME]` may have."""
    environ: Mapping[str, str] = {}
    """The agent's variables."""
    pull: Pull = "missing"

    def variable(self, name: str) -> str:
        """The agent's value, for a job that asks for it by its bare name.

        Raises:
            ItemError: it may not be had, or the agent has none.
        """
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.env):
            raise invalid(
                f"`env` has the bare name {name}, and the agent does not share that variable with"
                f" jobs: write {name}=value, or let its operator add it to agent.docker.env."
            )
        if name not in self.environ:
            raise invalid(f"`env` asks for {name}, which is not set where the agent runs.")
        return self.environ[name]

    def opened(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The engine's `HostConfig` fields of all keys that open the machine.

        Raises:
            ItemError: one of them is not allowed, or is not what it should be.
        """
        fields: dict[str, Any] = {}
        for key, value in args.items():
            if key == "volume":
                fields["Binds"] = [self._bind(entry) for entry in texts(key, value)]
            elif key in OPENING:
                self.require(key)
                name, parse = OPENING[key]
                fields[name] = parse(key, value)
        return fields

    def require(self, key: str) -> None:
        """Raises ItemError when the operator did not allow this key."""
        if key not in self.allow:
            raise ItemError(
                f"Resource argument of local-container: `{key}` is refused, as it opens the agent's"
                f" machine to jobs. Remove it, or let the agent's operator add {key} to"
                " agent.docker.allow.",
                reason=Reason.FORBIDDEN,
            )

    def _bind(self, entry: str) -> str:
        source, _, rest = entry.partition(":")
        target, _, options = rest.partition(":")
        if not source or not target.startswith("/"):
            raise invalid(f"`volume` must look like SOURCE:/target[:ro], not {entry!r}.")
        chosen = set(filter(None, options.split(",")))
        if not chosen <= {"ro", "rw", "z", "Z", "nocopy"}:
            raise invalid(f"`volume` knows the options ro, rw, z, Z and nocopy, not {options!r}.")
        if not source.startswith("/"):
            self.require("volume")
            return entry
        rule = self._rule_for(source)
        if rule.read_only:
            chosen = (chosen - {"rw"}) | {"ro"}
        return ":".join(filter(None, [source, target, ",".join(sorted(chosen))]))

    def _rule_for(self, source: str) -> VolumeRule:
        """Links are followed too: a run that may write in a folder could leave one behind."""
        places = {posixpath.normpath(source), str(Path(source).resolve())}
        for rule in self.volumes:
            if all(
                place == rule.folder or place.startswith(f"{rule.folder}/".replace("//", "/"))
                for place in places
            ):
                return rule
        listed = ", ".join(rule.folder for rule in self.volumes) or "none"
        raise ItemError(
            f"Resource argument of local-container: `volume` asks for {source}, which is no folder"
            f" that this agent mounts (agent.docker.volumes: {listed}).",
            reason=Reason.FORBIDDEN,
        )


def _switch(name: str, given: Any) -> bool:
    if given in (True, "true"):
        return True
    if given in (False, "false"):
        return False
    raise invalid(f"`{name}` must be true or false, not {given!r}.")


OPENING: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "add-host": ("ExtraHosts", texts),
    "cap-add": ("CapAdd", texts),
    "device": ("Devices", devices),
    "ipc": ("IpcMode", text),
    "pid": ("PidMode", text),
    "privileged": ("Privileged", _switch),
    "runtime": ("Runtime", text),
    "security-opt": ("SecurityOpt", texts),
    "userns": ("UsernsMode", text),
}
"""Keys that open the machine, with the engine's field for each; `user` and `volume` beside them."""
