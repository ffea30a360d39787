"""A job: what can be run, as its artifact describes it."""

import msgspec

from launch_async.domain.secret import Secret


class ArtifactSource(msgspec.Struct, frozen=True, tag="artifact"):
    """Code kept in a W&B artifact."""

    artifact_id: str
    job_artifact_id: str | None = None
    """The job's own artifact, which may hold `requirements.frozen.txt`."""
    notebook: str | None = None
    """Notebook within the code that is converted to a script beside it."""


class GitSource(msgspec.Struct, frozen=True, tag="git"):
    """Code at one commit of a git remote."""

    remote: str
    """Without a login."""
    commit: str
    """The whole hash in what a `JobStore` gives; a job may name a branch or tag instead."""
    login: Secret[str] | None = None
    """`USER:PASSWORD` that the job's remote was written with."""
    job_artifact_id: str | None = None
    """As `ArtifactSource.job_artifact_id`; it may hold a `diff.patch` as well."""
    notebook: str | None = None
    """As `ArtifactSource.notebook`."""


class ImageSource(msgspec.Struct, frozen=True, tag="image"):
    """Code inside a ready image."""

    image: str


Source = ArtifactSource | GitSource | ImageSource


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What an item resolves to. `entrypoint` is empty for images that bring their own."""

    source: Source
    entrypoint: tuple[str, ...] = ()
    ref: str | None = None
    """`entity/project/name:alias` that it was found under; None for a bare image."""
    artifact_id: str | None = None
    runtime: str | None = None
    """Python version such as `3.11`; None when the job does not say."""
    dockerfile: str | None = None
    """Path of the job's own Dockerfile, within its build context."""
    build_context: str | None = None
    """Folder within the code that is sent to a build; None: all of it."""
    base_image: str | None = None
    """Image in which the code runs as it is: nothing is built."""
