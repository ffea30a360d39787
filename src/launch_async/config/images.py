"""How images are made and got at: `builder`, `registry`, and the sections of `agent` about them.

`builder` and `registry` are W&B's blocks, in its words with dashes; what is marked as ours is
additive. Both tolerate unknown keys, as W&B's agent does (launch-features.md §1.4).
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from launch_async.config.cluster_builds import ClusterBuildsSection
from launch_async.domain.errors import ConfigError
from launch_async.domain.image import ImageRef

T = TypeVar("T")

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Megabytes = Annotated[int, msgspec.Meta(ge=0)]
Days = Annotated[float, msgspec.Meta(ge=0, le=36500)]
Host = Annotated[str, msgspec.Meta(pattern=r"^(\w([\w.-]*\w)?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$")]
VolumeText = Annotated[str, msgspec.Meta(pattern=r"^/[^:\x00]*(:(ro|rw))?$")]
VariablePattern = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\*?$")]
Opening = Literal[
    "add-host",
    "cap-add",
    "device",
    "ipc",
    "pid",
    "privileged",
    "runtime",
    "security-opt",
    "user",
    "userns",
    "volume",
]


class BuilderSection(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """`builder`: how images are built."""

    type: Literal["docker", "buildkit", "kaniko", "noop"] | None = None
    """`docker` builds on the engine, `buildkit` (ours) on a buildkitd or in the cluster, `kaniko`
    in the cluster, `noop` not at all: code runs in a base image. None: docker."""
    destination: str | None = None
    """Repository, without a tag, that images are pushed to. None: `registry.uri`, else they stay on
    the engine."""
    platform: str | None = None
    """`linux/amd64` or `linux/arm64`; None: the builder's own."""
    buildx: Literal["auto", "always", "never"] = "auto"
    """Ours. Whether docker builds by `docker buildx`; auto: if the command is there."""
    address: str | None = None
    """Ours. Of buildkitd: `tcp://HOST:PORT` or `unix:///PATH`."""
    tls_ca: str = ""
    """Ours. File of the authority that buildkitd's certificate is checked against."""
    tls_cert: str = ""
    """Ours. File of the agent's certificate for buildkitd."""
    tls_key: str = ""
    """Ours. File of its key."""
    tls_server_name: str = ""
    """Ours. Name in buildkitd's certificate, if it is not that of its address."""
    cache: str = ""
    """Ours. Image reference in a registry that keeps buildkit's build cache."""
    base_image: str | None = None
    """Ours. Base of generated Dockerfiles and of code that runs unbuilt, with Python in it.
    None: `python:X.Y-slim` of the job's version. A queue's `builder.base_image` comes first."""
    build_args: dict[str, str] = {}
    """Ours. Arguments of all builds. They show in the images' history: nothing secret."""
    install_with: Literal["pip", "uv"] = "pip"
    """Ours. What installs requirements in generated Dockerfiles."""
    cache_mounts: bool = True
    """Ours. Whether generated Dockerfiles keep what was downloaded in a cache of the builder, which
    the builds of all jobs share and may change."""
    timeout: Seconds = 3600.0
    """Ours. Seconds that one build may take, its push included."""
    wandb_tags: bool = False
    """Ours. Whether images get the 8-digit tag of W&B's agent beside their own."""
    cluster: ClusterBuildsSection | None = None
    """Ours. How builds in the cluster are; with it, buildkit builds there too."""
    build_job_name: str = "wandb-launch-container-build"
    """What the names of the Jobs in the cluster begin with."""
    build_context_store: str | None = None
    """An object store by which kaniko gets its contexts, if `cluster` names no claim."""
    kaniko_image: str = "gcr.io/kaniko-project/executor:v1.11.0"
    """Of kaniko, or of what takes its arguments."""
    kaniko_config: dict[str, Any] = {}
    """Laid over kaniko's Jobs, as `cluster.job`."""
    secret_name: str = ""
    """A Secret with a cloud's or a registry's login for kaniko, and `secret_key` in it."""
    secret_key: str = ""


class RegistrySection(msgspec.Struct, frozen=True, kw_only=True):
    """`registry`: deprecated by W&B in favour of `builder.destination`, which it names in parts."""

    type: Literal["ecr", "acr", "gcr", "local"] | None = None
    """`local`: images stay on the engine. The others only say which parts there are."""
    uri: str | None = None
    """The repository; the parts are for registries without it."""
    account_id: int | str | None = None
    region: str | None = None
    project: str | None = None
    repository: str | None = None
    repo_name: str | None = None
    image_name: str | None = msgspec.field(default=None, name="image-name")

    def destination(self) -> tuple[str, str] | None:
        """The key that names the repository, and the repository; None: images stay on the engine.

        Raises:
            ConfigError: parts are missing.
        """
        if self.type == "local" or (self.type is None and self.uri is None):
            return None
        if self.uri is not None:
            return "registry.uri", self.uri
        parts: tuple[int | str | None, ...] = (None,)
        shape = names = ""
        match self.type:
            case "ecr":
                parts = (self.account_id, self.region, self.repo_name or self.repository)
                shape, names = "{}.dkr.ecr.{}.amazonaws.com/{}", "account_id, region and repo_name"
            case "gcr":
                parts = (self.region, self.project, self.repository, self.image_name)
                shape = "{}-docker.pkg.dev/{}/{}/{}"
                names = "region, project, repository and image-name"
            case "acr" | None:
                pass
        if not all(parts):
            either = f", or {names}" if names else ""
            raise ConfigError(f"registry: the type {self.type} needs uri{either}")
        return "registry", shape.format(*parts)


class RegistryLoginConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One registry of `agent.registries`. Those of AWS, Google and Azure, and all that the user's
    Docker is logged in to, need none.
    """

    host: Host
    """HOST or HOST:PORT, as in image references; `docker.io` for Docker Hub."""
    username: str = ""
    password_file: str = ""
    """File of the password or token; read for each use, so that it may be renewed."""
    password_env: str = ""
    """Variable of the agent's environment with the password or token, instead of a file."""
    insecure: bool = False
    """Whether it speaks plain HTTP. Registries on loopback addresses may do so anyway."""

    def __post_init__(self) -> None:
        """What the fields say only together."""
        if self.username and bool(self.password_file) == bool(self.password_env):
            msg = f"the login for {self.host} needs either password_file or password_env"
            raise ValueError(msg)


class DockerSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`agent.docker`: what Docker jobs may do on the agent's machine, and what stays on it."""

    allow: tuple[Opening, ...] = ()
    """Resource arguments that open the machine and that queues may use all the same: `add-host`,
    `cap-add`, `device`, `ipc`, `pid`, `privileged`, `runtime`, `security-opt`, `user`, `userns`,
    and `volume` for named volumes."""
    volumes: tuple[VolumeText, ...] = ()
    """Folders that may be mounted, with what is below them: `/data:ro`, `/scratch`."""
    networks: tuple[str, ...] = ()
    """Docker networks that jobs may join, beside host, bridge and none."""
    env: tuple[VariablePattern, ...] = ()
    """Variables of the agent that jobs may ask for by `env: [NAME]`, as names or `PREFIX_*`."""
    pull: Literal["missing", "always", "never"] = "missing"
    """When images are fetched; a queue's `pull` comes first."""
    min_free_mb: Megabytes = 2000
    """Megabytes that must be free on the engine's disk before something is built or pulled; items
    wait until then."""
    images_days: Days = 14.0
    """Days that an image that was built here is kept on the engine after its last use."""
    images_mb: Megabytes = 50_000
    """Megabytes of such images; the longest unused go first."""


def builder_section(block: dict[str, Any] | None) -> BuilderSection:
    """The `builder` block, checked. Raises ConfigError that names the key."""
    return _checked(block, BuilderSection, "builder")


def registry_section(block: dict[str, Any] | None) -> RegistrySection:
    """As `builder_section`."""
    return _checked(block, RegistrySection, "registry")


def repository_of(destination: str, key: str) -> str:
    """A repository as W&B's agent takes it: `https://` before it is left out. `key` is its own.

    Raises:
        ConfigError: it is none, or has a tag.
    """
    name = destination.removeprefix("https://").rstrip("/")
    try:
        found = ImageRef.parse(f"{name}:tag")
    except ValueError:
        found = None
    if found is None:
        msg = (
            f"{key}: {_without_login(destination)!r} is no repository; write"
            " HOST[:PORT]/NAME, in lower case and without a tag"
        )
        raise ConfigError(msg)
    return found.name


def _without_login(address: str) -> str:
    return re.sub(r"(^|//)[^/@]*@", r"\1", address)


def _checked(block: dict[str, Any] | None, kind: type[T], name: str) -> T:
    try:
        return msgspec.convert(block or {}, kind, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        path = where.rstrip("`")
        msg = f"{name}{path}: {what}; see docs/configuration.md"
        raise ConfigError(msg) from error
