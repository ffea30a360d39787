"""Run specs and job files: JSON as W&B writes it into our types, strictly."""

import posixpath
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from launch_async.domain.git import DEFAULT_BRANCH, split_login
from launch_async.domain.ids import RunId
from launch_async.domain.job import ArtifactSource, GitSource, ImageSource, Job
from launch_async.domain.secret import Secret
from launch_async.domain.spec import Overrides, RunSpec

ARTIFACT_SCHEME = "wandb-artifact://_id/"
NOTEBOOK = ".ipynb"

SCHEDULER_URI = "placeholder-uri-scheduler"
"""By this a sweep's scheduler is known (launch-features.md R15)."""

_PYTHON = "python"
_MISNAMED = re.compile(r"pythonCPython \d")
"""As wandb 0.31 writes `python` into the jobs that it makes of runs (wire-contract.md §5.1)."""


class MalformedError(ValueError):
    """The JSON is not what W&B writes; the text names the part and is shown to users."""


class _WireOverrides(msgspec.Struct, frozen=True, kw_only=True):
    args: tuple[Any, ...] | None = None
    run_config: dict[str, Any] | None = None
    entry_point: tuple[str, ...] | None = None
    files: dict[str, Any] | None = None
    artifacts: dict[str, Any] | None = None
    dockerfile: str | None = None
    working_dir: str | None = None


class _WireDocker(msgspec.Struct, frozen=True):
    docker_image: str | None = None


class _WireService(msgspec.Struct, frozen=True):
    config: dict[str, Any] | None = None


class _WireSpec(msgspec.Struct, frozen=True, kw_only=True):
    entity: str
    project: str
    job: str | None = None
    image_uri: str | None = None
    uri: str | None = None
    docker: _WireDocker | None = None
    resource: str | None = None
    resource_args: dict[str, dict[str, Any] | None] | None = None
    overrides: _WireOverrides | None = None
    additional_services: tuple[_WireService, ...] | None = None
    name: str | None = None
    run_id: str | None = None
    author: str | None = None
    sweep_id: str | None = None
    resume_count: int | None = msgspec.field(default=None, name="_resume_count")
    api_key: str | None = msgspec.field(default=None, name="_wandb_api_key")


class _WireGit(msgspec.Struct, frozen=True):
    remote: str
    commit: str | None = None


class _WireSource(msgspec.Struct, frozen=True, kw_only=True):
    artifact: str | None = None
    git: _WireGit | None = None
    image: str | None = None
    entrypoint: tuple[str, ...] | None = None
    notebook: bool | None = None
    dockerfile: str | None = None
    build_context: str | None = None
    base_image: str | None = None


class _WireJob(msgspec.Struct, frozen=True, kw_only=True):
    source_type: str
    source: _WireSource
    runtime: str | None = None


def decode_run_spec(data: Any) -> RunSpec:
    """The run spec of a popped item (a JSON object, already decoded).

    Raises:
        MalformedError: a part is missing, has the wrong type, or says two things at once.
    """
    try:
        wire = msgspec.convert(data, _WireSpec)
    except msgspec.ValidationError as error:
        msg = f"the run spec cannot be understood: {error}"
        raise MalformedError(msg) from error
    image = wire.image_uri or (wire.docker.docker_image if wire.docker else None)
    if bool(wire.job) == bool(image):
        what = "both a job and an image" if image else "neither a job nor an image"
        if not image and wire.uri:
            what = f"the uri {wire.uri!r}, which this agent cannot run"
        msg = f"the run spec names {what}; launch a job or an image"
        raise MalformedError(msg)
    resource = wire.resource or "local-container"
    overrides = wire.overrides or _WireOverrides()
    return RunSpec(
        entity=wire.entity,
        project=wire.project,
        job=wire.job,
        image=image,
        resource=resource,
        resource_args=(wire.resource_args or {}).get(resource) or {},
        overrides=Overrides(
            args=tuple(str(argument) for argument in overrides.args or ()),
            run_config=overrides.run_config or {},
            entry_point=overrides.entry_point or (),
            files=overrides.files or {},
            artifacts=overrides.artifacts or {},
            dockerfile=overrides.dockerfile,
            working_dir=overrides.working_dir,
        ),
        name=wire.name,
        run_id=RunId(wire.run_id) if wire.run_id else None,
        author=wire.author,
        sweep_id=wire.sweep_id,
        additional_services=tuple(
            service.config for service in wire.additional_services or () if service.config
        ),
        scheduler=wire.uri == SCHEDULER_URI,
        resume_count=wire.resume_count or 0,
        api_key=Secret(wire.api_key) if wire.api_key else None,
    )


def decode_job(content: bytes, *, ref: str, artifact_id: str) -> Job:
    """The job in a `wandb-job.json` (formats: wire-contract.md §5.3).

    Raises:
        MalformedError: the file is not one.
    """
    try:
        wire = msgspec.json.decode(content, type=_WireJob)
    except msgspec.DecodeError as error:
        msg = f"wandb-job.json of {ref} cannot be understood: {error}"
        raise MalformedError(msg) from error
    source = wire.source
    entrypoint, notebook = _entrypoint(source, ref)
    return Job(
        source=_source(wire, ref, artifact_id=artifact_id, notebook=notebook),
        entrypoint=entrypoint,
        ref=ref,
        artifact_id=artifact_id,
        runtime=_python_version(wire.runtime),
        dockerfile=_path_inside(source.dockerfile, "dockerfile", ref, within=source.build_context),
        build_context=_path_inside(source.build_context, "build_context", ref),
        base_image=source.base_image or None,
    )


def encode_code_job(*, artifact_id: str, entrypoint: list[str], runtime: str) -> bytes:
    """A `wandb-job.json` for code kept in an artifact, as `wandb job create code` writes it."""
    types = {"wb_type": "typedDict", "params": {"type_map": {}}}
    return msgspec.json.encode(
        {
            "_version": "v0",
            "source_type": "artifact",
            "source": {
                "entrypoint": entrypoint,
                "notebook": False,
                "artifact": f"{ARTIFACT_SCHEME}{artifact_id}",
            },
            "input_types": types,
            "output_types": types,
            "runtime": runtime,
        }
    )


def decode_upload_headers(lines: Iterable[str] | None) -> dict[str, str]:
    """The headers of an upload, which the API gives as `Name:value` lines or not at all."""
    return dict(line.split(":", 1) for line in lines or ())


def _source(
    wire: _WireJob, ref: str, *, artifact_id: str, notebook: str | None
) -> ArtifactSource | GitSource | ImageSource:
    source = wire.source
    match wire.source_type:
        case "artifact" if source.artifact and source.artifact.startswith(ARTIFACT_SCHEME):
            return ArtifactSource(
                artifact_id=source.artifact.removeprefix(ARTIFACT_SCHEME),
                job_artifact_id=artifact_id,
                notebook=notebook,
            )
        case "repo" if source.git:
            remote, login = split_login(source.git.remote)
            return GitSource(
                remote=remote,
                commit=source.git.commit or DEFAULT_BRANCH,
                login=login,
                job_artifact_id=artifact_id,
                notebook=notebook,
            )
        case "image" if source.image:
            return ImageSource(image=source.image)
        case _:
            msg = f"the job {ref} has the source type {wire.source_type!r} without its source"
            raise MalformedError(msg)


def _entrypoint(source: _WireSource, ref: str) -> tuple[tuple[str, ...], str | None]:
    """The entry point, and the notebook that is to be converted: then its script is run instead."""
    words = tuple(_PYTHON if _MISNAMED.match(word) else word for word in source.entrypoint or ())
    if not source.notebook:
        return words, None
    for index, word in reversed(list(enumerate(words))):
        if word.endswith(NOTEBOOK):
            script = f"{word.removesuffix(NOTEBOOK)}.py"
            notebook = _path_inside(word, "notebook", ref)
            return (*words[:index], script, *words[index + 1 :]), notebook
    return words, None


def _path_inside(path: str | None, what: str, ref: str, *, within: str | None = "") -> str | None:
    """The path, once it is known to stay in the job's code when it starts in `within`."""
    if not path:
        return None
    whole = posixpath.normpath(posixpath.join(within or "", path))
    if whole.startswith(("/", "../")) or whole == ".." or "\0" in path:
        msg = f"the {what} {path!r} of the job {ref} leads out of its code; create the job again"
        raise MalformedError(msg)
    return posixpath.normpath(path)


def _python_version(runtime: str | None) -> str | None:
    """`3.11` of `3.11`, `3.11.7` or `CPython 3.11.7` (as wandb 0.31 writes for its own jobs)."""
    if not runtime:
        return None
    parts = runtime.removeprefix("CPython").strip().split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and parts[0].isdigit() else None
