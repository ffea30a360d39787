"""Builds in the agent's Kubernetes cluster, by kaniko or by BuildKit, as the configuration says."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from launch_async.adapters.builders.cluster.builder import ClusterBuilder
from launch_async.adapters.builders.cluster.buildkit import Buildkit
from launch_async.adapters.builders.cluster.contexts import Contexts
from launch_async.adapters.builders.cluster.executors import Executor
from launch_async.adapters.builders.cluster.job import (
    LOGINS_FILE,
    LOGINS_KEY,
    JobSettings,
    SecretMount,
)
from launch_async.adapters.builders.cluster.kaniko import Kaniko
from launch_async.adapters.builders.cluster.overlay import check_overlay, namespace_in
from launch_async.adapters.builders.cluster.volume import VolumeContexts
from launch_async.adapters.runners.kubernetes.clusters import Connect
from launch_async.adapters.runners.kubernetes.own_jobs import OwnJobs
from launch_async.config.clouds import STORE_WORDS, STORES
from launch_async.config.cluster_builds import ClusterBuildsSection, with_environment
from launch_async.config.images import BuilderSection
from launch_async.config.paths import home_path
from launch_async.domain.errors import ConfigError
from launch_async.domain.image import ImageRef
from launch_async.ports.cluster_jobs import ClusterJobs
from launch_async.ports.images import RegistryLogins

BUILDKIT_IMAGE = "docker.io/moby/buildkit:v0.34.2"
_REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_AWS_FOLDER = "/root/.aws"
_GOOGLE_FOLDER = "/kaniko/.config/gcloud"
_GOOGLE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"


class ClusterBuilds:
    """The builder, and what it lives on."""

    def __init__(self, jobs: OwnJobs, builder: ClusterBuilder) -> None:
        self.jobs = jobs
        self.builder = builder

    async def serve(self) -> None:
        """Clear away what killed lives left, then watch builds, until cancelled."""
        await self.builder.clean()
        await self.jobs.serve()


def is_in_cluster(section: BuilderSection) -> bool:
    """Whether images are built in the cluster."""
    return section.type == "kaniko" or (section.type == "buildkit" and section.cluster is not None)


def cluster_builds(
    section: BuilderSection,
    connect: Connect,
    logins: RegistryLogins,
    *,
    environ: Mapping[str, str],
    identity: str,
    insecure: Sequence[str],
) -> ClusterBuilds:
    """For a section that is `is_in_cluster`; the rest is as for `cluster_builder`."""
    jobs = OwnJobs(connect, identity=identity)
    builder = cluster_builder(
        section, jobs, logins, environ=environ, identity=identity, insecure=insecure
    )
    return ClusterBuilds(jobs, builder)


def cluster_builder(
    section: BuilderSection,
    jobs: ClusterJobs,
    logins: RegistryLogins,
    *,
    environ: Mapping[str, str],
    identity: str,
    insecure: Sequence[str],
) -> ClusterBuilder:
    """`environ` is the agent's, `insecure` the hosts of registries that speak plain HTTP.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    given = with_environment(section.cluster or ClusterBuildsSection(), environ)
    if not section.destination:
        raise ConfigError(
            "builder.destination is missing: a build in the cluster leaves its image nowhere but in"
            " a registry"
        )
    if section.address is not None and section.type == "buildkit":
        raise ConfigError(
            "builder.address and builder.cluster: keep one, as BuildKit builds on a buildkitd or in"
            " the cluster"
        )
    contexts = _contexts_of(section, given)
    overlay = _overlay_of(section, given)
    secrets, own_logins = _secrets_of(section, given)
    settings = JobSettings(
        identity=identity,
        prefix=section.build_job_name,
        namespace=given.namespace or namespace_in(overlay),
        service_account=given.service_account,
        secrets=secrets,
        own_logins=own_logins,
        overlay=overlay,
        timeout_seconds=section.timeout,
    )
    return ClusterBuilder(
        jobs,
        _executor_of(section, given, insecure, environ),
        logins,
        contexts=contexts,
        settings=settings,
    )


def _executor_of(
    section: BuilderSection,
    given: ClusterBuildsSection,
    insecure: Sequence[str],
    environ: Mapping[str, str],
) -> Executor:
    cache = section.cache or None
    if section.type == "kaniko":
        env = {} if given.context_claim else _store_variables(environ)
        return Kaniko(section.kaniko_image, cache=cache, insecure=insecure, env=env)
    variant = "" if given.privileged else "-rootless"
    image = given.image or f"{BUILDKIT_IMAGE}{variant}"
    return Buildkit(image, privileged=given.privileged, cache=cache, insecure=insecure)


def _contexts_of(section: BuilderSection, given: ClusterBuildsSection) -> Contexts:
    """A claim's volume; for kaniko, if there is no claim, the store that W&B's agent would use."""
    if given.context_claim and given.context_folder:
        folder = home_path(given.context_folder, "builder.cluster.context-folder")
        return VolumeContexts(folder, claim=given.context_claim, sub_path=given.context_sub_path)
    url = section.build_context_store
    if url and section.type == "kaniko" and not given.context_claim:
        return _stored(url)
    raise ConfigError(
        "builds in the cluster need a place for their contexts: name a persistent volume claim with"
        " builder.cluster.context-claim, and with builder.cluster.context-folder where the agent"
        " sees its volume; or, for kaniko, an object store with builder.build-context-store"
    )


def _stored(url: str) -> Contexts:
    if not STORES.match(url):
        msg = f"builder.build-context-store: {url!r} is no object store; write {STORE_WORDS}"
        raise ConfigError(msg)
    # Its library is loaded by those who use it: every agent would wait for it at its start.
    stored_contexts: Callable[[str], Contexts] = import_module(
        "launch_async.adapters.builders.cluster.store"
    ).stored_contexts
    return stored_contexts(url)


def _store_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the store is, told to kaniko as it is told to the agent; logins are no part of it."""
    found = {name: environ[name] for name in _REGION_VARIABLES if environ.get(name)}
    if endpoint := environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL"):
        found |= {"S3_ENDPOINT": endpoint, "S3_FORCE_PATH_STYLE": "true"}
    return found


def _overlay_of(section: BuilderSection, given: ClusterBuildsSection) -> Mapping[str, Any]:
    overlay, key = given.job, "builder.cluster.job"
    if section.type == "kaniko" and section.kaniko_config:
        if overlay:
            msg = "builder.kaniko-config and builder.cluster.job say the same: keep one"
            raise ConfigError(msg)
        overlay, key = section.kaniko_config, "builder.kaniko-config"
    check_overlay(overlay, key)
    return overlay


def _secrets_of(
    section: BuilderSection, given: ClusterBuildsSection
) -> tuple[tuple[SecretMount, ...], bool]:
    """Those that are there already, and whether a build makes one with the agent's logins."""
    logins = Kaniko.logins_folder if section.type == "kaniko" else Buildkit.logins_folder
    found: list[SecretMount] = []
    if given.registry_secret:
        one = {"secret": given.registry_secret, "key": LOGINS_KEY, "file": LOGINS_FILE}
        found.append(SecretMount(folder=logins, **one))
    if bool(section.secret_name) != bool(section.secret_key):
        raise ConfigError("builder.secret-name and builder.secret-key need each other")
    if section.secret_name and section.type == "kaniko":
        found.append(_cloud_secret(section, logins))
    if sum(one.folder == logins for one in found) > 1:
        raise ConfigError(
            "builder.secret-name and builder.cluster.registry-secret are both a login for the"
            " registry: keep one"
        )
    return tuple(found), all(one.folder != logins for one in found)


def _cloud_secret(section: BuilderSection, logins: str) -> SecretMount:
    """By the registry, as W&B's agent does; of another registry it is a Docker `config.json`."""
    secret = {"secret": section.secret_name, "key": section.secret_key}
    host = ImageRef.parse(f"{section.destination}:tag").host
    if ".dkr.ecr." in host:
        return SecretMount(folder=_AWS_FOLDER, file="credentials", **secret)
    if host.endswith((".pkg.dev", "gcr.io")):
        return SecretMount(
            folder=_GOOGLE_FOLDER, file="config.json", variable=_GOOGLE_VARIABLE, **secret
        )
    return SecretMount(folder=logins, file=LOGINS_FILE, **secret)
