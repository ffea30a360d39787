"""The Kubernetes target of an agent: its runner, and who makes images that a cluster can pull."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from launch_async.adapters.runners.kubernetes.clusters import Connect, connector
from launch_async.adapters.runners.kubernetes.policy import KubernetesPolicy
from launch_async.adapters.runners.kubernetes.runner import KubernetesRunner
from launch_async.compose.fetching import CodeContainers
from launch_async.config.kubernetes import KubernetesSection
from launch_async.config.paths import home_path
from launch_async.domain.errors import ItemError, Reason, Stage
from launch_async.domain.git import GitSettings
from launch_async.domain.item import Item
from launch_async.domain.job import ImageSource
from launch_async.ports.build import Builder, BuildOrder
from launch_async.ports.images import RegistryLogins
from launch_async.ports.runner import Work

_WILD = frozenset("*?[")


class Looks(NamedTuple):
    """Where runs are looked for at a start that nobody remembers."""

    namespaces: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...]
    """Pairs of apiVersion and kind."""


def kubernetes_runner(
    section: KubernetesSection | None,
    *,
    environ: Mapping[str, str],
    state_dir: Path,
    logins: RegistryLogins,
    git: GitSettings,
) -> KubernetesRunner:
    """The runner; without a section it looks only where it has made something before.

    `git`: how pods fetch the code of jobs that are not built.

    Raises:
        ConfigError: the kubeconfig's path is in a home folder that is not there.
    """
    given = section or KubernetesSection()
    looks = looks_of(given)
    return KubernetesRunner(
        connect=connect_of(section, environ),
        folder=state_dir / "kubernetes",
        policy=policy_of(given),
        logins=logins,
        code=CodeContainers(given.code_image, git, environ),
        searches=section is not None,
        namespaces=looks.namespaces,
        kinds=looks.kinds,
    )


def kubeconfig_of(section: KubernetesSection) -> Path | None:
    """The kubeconfig that it names. Raises ConfigError as `kubernetes_runner`."""
    if not section.config_file:
        return None
    return home_path(section.config_file, "agent.kubernetes.config_file")


def connect_of(section: KubernetesSection | None, environ: Mapping[str, str]) -> Connect:
    """What connects clusters as the section says.

    Raises:
        ConfigError: as `kubernetes_runner`.
    """
    given = section or KubernetesSection()
    return connector(
        config_file=kubeconfig_of(given),
        context=given.context or None,
        environ=environ,
        calls_per_second=given.calls_per_second,
        burst=given.burst,
    )


def policy_of(section: KubernetesSection) -> KubernetesPolicy:
    """The section as the runner wants it."""
    return KubernetesPolicy(
        namespaces=section.namespaces,
        allowed_kinds=section.allowed_kinds,
        config_files=section.config_files,
        service_accounts=section.service_accounts,
        allow=None if section.allow is None else frozenset(section.allow),
    )


def looks_of(section: KubernetesSection) -> Looks:
    """What of the section says so; patterns name no namespace."""
    named = (one.rpartition("/") for one in section.kinds)
    return Looks(
        tuple(name for name in section.namespaces or () if _WILD.isdisjoint(name)),
        tuple((version, kind) for version, _, kind in named),
    )


class Pushed:
    """A `Builder` of images, of which those that it makes are in a registry."""

    def __init__(self, builder: Builder, *, destination: str | None, builds: bool) -> None:
        """`builds`: whether it builds anything, or all code runs in a base image."""
        self._builder = builder
        self._destination = destination
        self._builds = builds

    async def build(self, order: BuildOrder) -> Work:
        """As `Builder.build`; raises ItemError when an image is to be built for no registry."""
        ready = isinstance(order.job.source, ImageSource) or order.job.base_image
        if self._destination is None and self._builds and not ready:
            raise ItemError(
                "A cluster pulls its images from a registry, and this agent pushes to none: let its"
                " operator set builder.destination, or `builder: {type: noop}` to run code without"
                " a build; or give the job a base image, or push an image job.",
                reason=Reason.TARGET_UNSUPPORTED,
                stage=Stage.BUILD,
            )
        return await self._builder.build(order)

    async def discard(self, item: Item) -> None:
        """As `Builder.discard`."""
        await self._builder.discard(item)
