"""The Dockerfile of a job that has none.

```
base           the Python image; or another one, in which apt finds a Python
dependencies   base + /env, a virtual environment: a layer that changes only with the lists
(last)         base + /env + the user + the code + the entry point
```
Both stages have one base, so that what is compiled in the one runs in the other, and what only the
compiling needs stays behind.
"""

import re
import sys
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

import msgspec

from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.images.dependencies import FOLDER, INSTALLER, Dependencies
from launch_async.images.quoting import assignment, exec_form, user_name
from launch_async.images.settings import checked_reference

OLDEST_PYTHON = (3, 8)
NEWEST_PYTHON = (3, 15)
ENVIRONMENT = "/env"
MISSING_FILE = f"{ENVIRONMENT}/launch-async-missing.txt"

_ROOT = "USER 0:0"
_TOOLS = "/launch-async"
_PYTHON = f"{ENVIRONMENT}/bin/python"
_CACHES: Mapping[str, str] = {"pip": "/root/.cache/pip", "uv": "/root/.cache/uv"}
"""Where `docker build` of people's own Dockerfiles keeps them too."""


class Brings(Enum):
    """What a base has."""

    PYTHON = "a python3 with venv and pip"
    APT = "apt-get, which finds one"


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What an image is built upon."""

    image: str
    brings: Brings
    python: str
    """The job's `X.Y`."""
    is_roots: bool = False
    """Whether it is known to have no other user."""
    warnings: tuple[str, ...] = ()


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How a generated image is arranged."""

    user: str
    uid: int
    has_mounts: bool
    install_with: Literal["uv", "pip"]

    @property
    def code(self) -> str:
        """Folder of the code; the user's home, unless it is root."""
        return f"/home/{user_name(self.user)}"

    @property
    def owner(self) -> str:
        """Numbers: Kubernetes' `runAsNonRoot` trusts no names. The group as in W&B's images."""
        return f"{self.uid:d}:0"


def base_of(builder: Mapping[str, Any], default: str | None, runtime: str | None) -> Base:
    """The base for a job: the queue's accelerator image, its base image, the agent's, Python's own.

    Raises:
        ItemError: one of them is no image reference.
    """
    for key in ("accelerator", "cuda"):
        named = _image(builder.get(key) or {}, f"builder.{key}.base_image")
        if named is not None:
            return Base(image=named, brings=Brings.APT, python=_python(runtime)[0])
    return python_base(builder, default, runtime)


def python_base(builder: Mapping[str, Any], default: str | None, runtime: str | None) -> Base:
    """As `base_of`, of images that have a Python: code runs in them unbuilt, too.

    Raises:
        ItemError: as `base_of`.
    """
    python, warnings = _python(runtime)
    named = _image(builder, "builder.base_image")
    if named is None and default is not None:
        named = checked_reference(default, "`builder.base_image` of the agent's configuration")
    if named is not None:
        return Base(image=named, brings=Brings.PYTHON, python=python)
    return Base(
        image=f"python:{python}-slim",
        brings=Brings.PYTHON,
        python=python,
        is_roots=True,
        warnings=warnings,
    )


def generate(base: Base, needs: Dependencies, layout: Layout, entrypoint: tuple[str, ...]) -> str:
    """The Dockerfile's text; without an ENTRYPOINT when there is none.

    Raises:
        ItemError: the entry point cannot be one.
    """
    parts = [
        _base_stage(base),
        _dependency_stage(base, needs, layout),
        _last_stage(base, needs, layout, entrypoint),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _base_stage(base: Base) -> list[str]:
    if base.brings is Brings.PYTHON:
        return []
    exact = f"python{base.python}"
    return [
        f"FROM {base.image} AS base",
        _ROOT,
        "ARG DEBIAN_FRONTEND=noninteractive",
        "# The job's Python where the distribution has it, else the distribution's own.",
        "RUN apt-get update \\",
        f"    && {{ apt-get install -y --no-install-recommends {exact} {exact}-venv \\",
        "    || apt-get install -y --no-install-recommends python3 python3-venv; } \\",
        "    && rm -rf /var/lib/apt/lists/*",
    ]


def _dependency_stage(base: Base, needs: Dependencies, layout: Layout) -> list[str]:
    lines = [f"FROM {_from(base)} AS dependencies", *_as_root(base), f"WORKDIR {_TOOLS}"]
    if base.brings is Brings.PYTHON:
        lines.append(f"RUN {exec_form(['python3', '-m', 'venv', ENVIRONMENT])}")
    else:
        found = f'"$(command -v python{base.python} || command -v python3)"'
        lines.append(f"RUN {found} -m venv {ENVIRONMENT}")
    if needs.extra_files:
        lines.append(f"COPY {FOLDER}/ ./")
    if needs.first is not None:
        lines.append(_install(needs.first, needs, layout))
    if needs.whole is not None:  # paths within the code: where they will be in the end as well
        lines += [f"WORKDIR {layout.code}", "COPY . ."]
        lines.append(_install(needs.whole, needs, layout))
    return lines


def _install(path: str, needs: Dependencies, layout: Layout) -> str:
    words = [_PYTHON, f"{_TOOLS}/{INSTALLER}", "--with", layout.install_with]
    cache, mount = _CACHES[layout.install_with], ""
    if layout.has_mounts:
        mount = f"--mount=type=cache,target={cache} "
        words += ["--cache", cache]
    if needs.frozen:
        words += ["--frozen", "--note", MISSING_FILE]
    return f"RUN {mount}{exec_form([*words, f'{_TOOLS}/{path}'])}"


def _last_stage(
    base: Base, needs: Dependencies, layout: Layout, entrypoint: tuple[str, ...]
) -> list[str]:
    code = layout.code
    variables = [
        f'PATH="{ENVIRONMENT}/bin:$PATH"',
        assignment("VIRTUAL_ENV", ENVIRONMENT),
        assignment("PYTHONUNBUFFERED", "1"),
    ]
    lines = [f"FROM {_from(base)}", *_as_root(base)]
    if layout.uid:
        variables.append(assignment("HOME", code))
        user = user_name(layout.user)
        add = f"useradd --no-log-init --non-unique --uid {layout.uid:d} --gid 0 {user}"
        lines += [
            f"RUN {{ id -u {user} >/dev/null 2>&1 || {add}; }} \\",
            f"    && mkdir -p {code} \\",
            f"    && chown {layout.owner} {code}",
        ]
    lines += [
        f"ENV {' '.join(variables)}",
        f"WORKDIR {code}",
        f"COPY --from=dependencies {ENVIRONMENT} {ENVIRONMENT}",
        # An installation from a path may have made files beside the code.
        f"COPY --chown={layout.owner} . ."
        if needs.whole is None
        else f"COPY --from=dependencies --chown={layout.owner} {code} {code}",
    ]
    if needs.frozen:
        lines += [
            "# Said again: of a dependency stage that it has built before, a builder says nothing.",
            f"RUN {exec_form(['cat', MISSING_FILE])}",
        ]
    if layout.uid:
        lines.append(f"USER {layout.owner}")
    if entrypoint:
        lines.append(f"ENTRYPOINT {exec_form(entrypoint)}")
    return lines


def _from(base: Base) -> str:
    return base.image if base.brings is Brings.PYTHON else "base"


def _as_root(base: Base) -> list[str]:
    return [] if base.is_roots or base.brings is Brings.APT else [_ROOT]


def _image(block: object, setting: str) -> str | None:
    named = block.get("base_image") if isinstance(block, Mapping) else block
    if not named and isinstance(block, Mapping):
        return None
    if not isinstance(named, str) or not isinstance(block, Mapping):
        raise ItemError(
            f"`{setting}` of the resource config must be an image reference.",
            reason=Reason.RESOURCE_ARGS_INVALID,
            stage=Stage.BUILD,
        )
    return checked_reference(named, f"`{setting}` of the resource config")


def _python(runtime: str | None) -> tuple[str, tuple[str, ...]]:
    """The job's Python as `X.Y`, else the agent's, within what there are images of."""
    named = re.search(r"([0-9]{1,2})\.([0-9]{1,3})", runtime or "")
    wanted = (int(named[1]), int(named[2])) if named else sys.version_info[:2]
    used = min(max(wanted, OLDEST_PYTHON), NEWEST_PYTHON)
    name = f"{used[0]}.{used[1]}"
    if used == wanted:
        return name, ()
    return name, (f"the job wants Python {wanted[0]}.{wanted[1]}: its image has {name}",)
