"""Which Dockerfile builds a job's image, from which folder, and what the image then starts.

```
the item's override -> the job's own -> Dockerfile.wandb beside the entry point -> generated
```
(launch-features.md B4.) No path leaves the job's code; a Dockerfile that is named must be in it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from launch_async.domain.errors import ItemError
from launch_async.images.dependencies import FOLDER, dependencies_of
from launch_async.images.dockerfile import bases, instructions
from launch_async.images.generated import Layout, base_of, generate
from launch_async.images.ignore import Ignore, parse_ignore
from launch_async.images.places import (
    entry_file,
    file_within,
    folder_within,
    invalid,
    is_script_alone,
    seen_from,
    text_of,
)

BESIDE_ENTRY_POINT = "Dockerfile.wandb"
IGNORE_FILE = ".dockerignore"


class RecipeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job that wants an image."""

    code: Path
    """Folder of the job's code; it is only read."""
    entrypoint: tuple[str, ...]
    """The item's, else the job's own; may be empty only when the Dockerfile is the user's own."""
    overrides_entry_point: bool
    """Whether the entry point is the item's."""
    dockerfile: str | None
    """The item's choice, within the build context."""
    job_dockerfile: str | None
    build_context: str | None
    """Folder that the Dockerfile and the entry point are relative to; None: all of the code."""
    runtime: str | None
    """Python version such as `3.11` or `3.11.4`."""
    builder: Mapping[str, Any]
    """W&B's `builder` block of the resource config: `base_image`, `accelerator.base_image`."""
    has_mounts: bool
    """Whether the builder knows BuildKit's cache mounts."""
    user: str = "launch"
    uid: int = 1000
    """0 for SageMaker, whose containers must be root's."""
    install_with: Literal["uv", "pip"] = "pip"
    base_image: str | None = None
    """The agent's base for generated Dockerfiles, with Python; None: Python's own slim image."""
    build_args: Mapping[str, str] = {}
    """Arguments that the build gets, as images that FROM names may depend on them."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All that makes a job's image."""

    context: Path
    """Folder whose content is sent."""
    ignore: tuple[str, ...]
    """Patterns for what is not, as `.dockerignore` has them."""
    dockerfile: str
    """The Dockerfile's text."""
    generated: bool
    extra_files: Mapping[str, str] = {}
    """Files that the context has besides; they replace the job's of the same name."""
    entrypoint: tuple[str, ...]
    """What the runner must start; empty: what the image says itself."""
    working_dir: str | None = None
    """Where the code is in the image; None: only its Dockerfile knows."""
    bases: tuple[str, ...]
    """Images that it builds upon, as far as they can be known."""
    warnings: tuple[str, ...] = ()


def recipe_of(order: RecipeOrder) -> Recipe:
    """How to make the job's image; blocks, for a worker thread.

    Raises:
        ItemError: a path is missing or leaves the code, a list of requirements cannot be read, or a
            name cannot be what it is used for.
    """
    code = order.code.resolve()
    context = code
    if order.build_context:
        context = folder_within(code, order.build_context, "The build context")
    named = order.dockerfile or order.job_dockerfile
    if named:
        path = file_within(code, context, named)
        if path is None:
            raise _missing(named, order)
        return _own(order, path, context, order.entrypoint)
    entry = entry_file(order.entrypoint, code, context)
    folder = entry.parent if entry is not None and entry.is_relative_to(context) else context
    path = file_within(code, folder, BESIDE_ENTRY_POINT)
    if path is not None:
        return _own(order, path, folder, seen_from(folder, order.entrypoint, code, context))
    return _generated(order, code, context)


def _own(order: RecipeOrder, path: Path, context: Path, entrypoint: tuple[str, ...]) -> Recipe:
    if is_script_alone(entrypoint) and not order.overrides_entry_point:
        entrypoint = ()  # nobody chose it: `wandb job create` writes `main.py` then
    text = text_of(path, f"The Dockerfile {path.name}")
    if not any(one.name == "FROM" for one in instructions(text)):
        raise invalid(f"The Dockerfile {path.name} names no image to build upon: it has no FROM.")
    return Recipe(
        context=context,
        ignore=_ignored(order.code.resolve(), context, path),
        dockerfile=text,
        generated=False,
        entrypoint=entrypoint,
        bases=bases(text, order.build_args),
    )


def _generated(order: RecipeOrder, code: Path, context: Path) -> Recipe:
    if not order.entrypoint:
        raise invalid("The job has no entry point: give the job or the item one, or a Dockerfile.")
    entrypoint = order.entrypoint
    if entry_file(entrypoint, code, context) is None:  # named from the code's root instead
        entrypoint = seen_from(context, entrypoint, code, code)
    if is_script_alone(entrypoint):
        entrypoint = ("python", *entrypoint)
    base = base_of(order.builder, order.base_image, order.runtime)
    needs = dependencies_of(context)
    layout = Layout(
        user=order.user,
        uid=order.uid,
        has_mounts=order.has_mounts,
        install_with=order.install_with,
    )
    # What an item starts instead is no part of the image: items that differ in it share one.
    text = generate(base, needs, layout, () if order.overrides_entry_point else entrypoint)
    return Recipe(
        context=context,
        ignore=(*_ignored(code, context, None), "**/.git", FOLDER),
        dockerfile=text,
        generated=True,
        extra_files=needs.extra_files,
        entrypoint=entrypoint,
        working_dir=layout.code,
        bases=(base.image,),
        warnings=(*base.warnings, *needs.warnings),
    )


def _ignored(code: Path, context: Path, dockerfile: Path | None) -> tuple[str, ...]:
    """The patterns of the file that is the Dockerfile's own, else of the context's."""
    path = None
    if dockerfile is not None:
        path = file_within(code, dockerfile.parent, f"{dockerfile.name}{IGNORE_FILE}")
    path = path or file_within(code, context, IGNORE_FILE)
    if path is None:
        return ()
    patterns = parse_ignore(text_of(path, f"The job's {path.name}"))
    Ignore(patterns)  # says what is wrong with them, now
    return patterns


def _missing(named: str, order: RecipeOrder) -> ItemError:
    whose = "item" if order.dockerfile else "job"
    context = f"its build context {order.build_context!r}" if order.build_context else "its code"
    return invalid(
        f"The {whose} names the Dockerfile {named!r}, which is no file of {context}."
        " It is relative to the build context, and must lie within the job's code."
    )
