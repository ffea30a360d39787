"""BuildKit in a pod of its own: a `buildkitd` that lives as long as its one build.

Rootless it needs a node that lets users make user namespaces, and a namespace that lets pods run
without seccomp; privileged it needs a namespace that lets pods be so.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launch_async.adapters.builders.buildctl import build_words, cache_of
from launch_async.adapters.builders.cluster.executors import CONTAINER, CONTEXT, Part
from launch_async.adapters.builders.steps import PlainSteps
from launch_async.ports.images import ImageBuild, Say

_WORK = "/build"
_USER = 1000
_NOT_BEGUN = 97

_SCRIPT = rf"""
fail() {{ printf 'error: %s\n' "$1"; exit {_NOT_BEGUN}; }}
cd {_WORK} || fail "there is no {_WORK}"
mkdir context && tar -xzf {CONTEXT} -C context || fail 'the build context cannot be unpacked'
printf '%s' "$BUILDKITD_CONFIG" >buildkitd.toml
address=unix://{_WORK}/buildkitd.sock
$BUILDKITD --config buildkitd.toml --addr "$address" --root {_WORK}/buildkit >buildkitd.log 2>&1 &
daemon=$!
tries=300
until buildctl --addr "$address" debug workers >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ] || ! kill -0 "$daemon" 2>/dev/null; then
        cat buildkitd.log
        fail "buildkitd did not start: $(tail -n 2 buildkitd.log | tr '\n' ' ')"
    fi
    sleep 0.1
done
buildctl --addr "$address" build "$@"
"""
"""The image needs `sh`, `tar`, `buildctl`, `buildkitd`, and `rootlesskit` for the second form."""


class Buildkit:
    """Implements `Executor`. `cache`: repository that keeps layers for later builds.

    `insecure`: hosts of registries that speak plain HTTP.
    """

    name = "buildkit"
    title = "BuildKit"
    has_mounts = True
    logins_folder = "/logins"
    not_begun_code = _NOT_BEGUN

    def __init__(
        self,
        image: str,
        *,
        privileged: bool,
        cache: str | None = None,
        insecure: Iterable[str] = (),
    ) -> None:
        self._image = image
        self._privileged = privileged
        self._cache = cache
        self._insecure = tuple(insecure)

    def part(self, build: ImageBuild, dockerfile: Path, context: str) -> Part:
        """A shell that starts the daemon; what is built is in its arguments alone."""
        del context  # always a file
        cache = None if self._cache is None else cache_of(self._cache, dockerfile)
        within = f"{_WORK}/context/{build.dockerfile}"
        words = build_words(build, context=f"{_WORK}/context", dockerfile=within, cache=cache)
        env = {
            "BUILDKITD": self._daemon(),
            "BUILDKITD_CONFIG": self._config(),
            "DOCKER_CONFIG": self.logins_folder,
        }
        container = {
            "name": CONTAINER,
            "image": self._image,
            "command": ["sh", "-c", _SCRIPT, CONTAINER],
            "args": words,
            "env": [{"name": name, "value": value} for name, value in env.items()],
            "securityContext": self._security(),
            "volumeMounts": [{"name": "build", "mountPath": _WORK}],
        }
        return Part(container=container, volumes=({"name": "build", "emptyDir": {}},))

    def steps(self, say: Say) -> PlainSteps:
        """Reads `buildctl`'s plain progress."""
        return PlainSteps(say)

    def _daemon(self) -> str:
        if self._privileged:
            return "buildkitd"
        # A pod that is not privileged has no process tree to hide from what it builds.
        return "rootlesskit buildkitd --oci-worker-no-process-sandbox"

    def _config(self) -> str:
        return "".join(
            f'[registry."{host}"]\nhttp = true\ninsecure = true\n' for host in self._insecure
        )

    def _security(self) -> dict[str, Any]:
        if self._privileged:
            return {"privileged": True}
        return {
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "Unconfined"},
            "appArmorProfile": {"type": "Unconfined"},
        }
