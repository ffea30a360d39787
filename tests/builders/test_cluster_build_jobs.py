"""The Jobs of builds in a cluster, what their logs tell, and the contexts that they get."""

import base64
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from image_workshops import KnownLogins

from launch_async.adapters.builders.cluster.builder import ClusterBuilder
from launch_async.adapters.builders.cluster.overlay import check_overlay, overlaid
from launch_async.compose.cluster_builds import cluster_builder
from launch_async.config.images import builder_section
from launch_async.domain.errors import ConfigError, ItemError, LaunchError, Reason, Unavailable
from launch_async.domain.run import RunEnd
from launch_async.domain.secret import Secret
from launch_async.ports.cluster_jobs import ClusterJob, ClusterJobs, Feed, SecretData
from launch_async.ports.images import ImageBuild, RegistryLogin, Say

pytestmark = pytest.mark.anyio

HOST = "registry.example"
DONE = RunEnd(exit_code=0)
KANIKO = {"type": "kaniko", "destination": f"{HOST}/team/job"}
BUILDKIT = {"type": "buildkit", "destination": f"{HOST}/team/job"}


class PlayedJobs:
    """Implements `ports.cluster_jobs.ClusterJobs`: prints what it is told, keeps what it gets."""

    def __init__(self, end: RunEnd = DONE, printed: bytes = b"", seen: Path | None = None) -> None:
        self.end = end
        self.printed = printed
        self.jobs: list[ClusterJob] = []
        self.secrets: list[Mapping[str, Secret[str]]] = []
        self.files: list[list[str]] = []
        self._seen = seen

    async def check(self) -> None: ...

    async def run(
        self,
        job: ClusterJob,
        *,
        prepare: Callable[[], Any],
        secret: SecretData | None,
        feed: Feed,
        say: Say,
    ) -> RunEnd:
        self.jobs.append(job)
        await prepare()
        if self._seen is not None:
            self.files.append(sorted(str(path) for path in self._seen.rglob("*.gz")))
        if secret is not None:
            self.secrets += [await secret() for _ in range(2)]  # at first, and as logins expire
        await feed(self.printed)
        return self.end


def builder_of(
    block: Mapping[str, Any],
    folder: Path,
    jobs: ClusterJobs | None = None,
    *,
    logins: KnownLogins | None = None,
    environ: Mapping[str, str] | None = None,
) -> ClusterBuilder:
    """As the configuration says, with a claim for contexts whose volume is `folder`."""
    places = {"context-claim": "contexts", "context-folder": str(folder)}
    return builder_as_configured(
        {**block, "cluster": {**places, **block.get("cluster", {})}}, jobs, logins, environ
    )


def builder_as_configured(
    block: Mapping[str, Any],
    jobs: ClusterJobs | None = None,
    logins: KnownLogins | None = None,
    environ: Mapping[str, str] | None = None,
) -> ClusterBuilder:
    return cluster_builder(
        builder_section(dict(block)),
        jobs or PlayedJobs(),
        logins or KnownLogins(),
        environ=environ or {},
        identity="an-agent",
        insecure=["plain.example:5000"],
    )


async def job_of(
    block: Mapping[str, Any], folder: Path, order: ImageBuild, **more: Any
) -> ClusterJob:
    """The Job of a build that goes well."""
    jobs = PlayedJobs()
    await builder_of(block, folder, jobs, **more).build(order, lambda _: None)
    return jobs.jobs[-1]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def order(tmp_path: Path) -> ImageBuild:
    context = tmp_path / "context"
    (context / "docker").mkdir(parents=True)
    (context / "docker" / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    (context / "file").write_text("content")
    (context / "link").symlink_to("file")
    return ImageBuild(
        context=context,
        dockerfile="docker/Dockerfile",
        image=f"{HOST}/team/job:la-123",
        more_images=(f"{HOST}/team/job:older",),
        bases=("private.example/base:1",),
        platform="linux/arm64",
        target="last",
        build_args={"COLOUR": 'blue, "and" = green'},
        labels={"made": "here"},
        push=True,
        log=tmp_path / "build.log",
    )


def container_of(job: ClusterJob) -> dict[str, Any]:
    (container,) = job.spec["template"]["spec"]["containers"]
    return container


def env_of(job: ClusterJob) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container_of(job)["env"]}


async def test_kaniko_is_told_all_of_the_order(volume: Path, order: ImageBuild) -> None:
    job = await job_of(KANIKO, volume, order)

    container = container_of(job)
    assert container["image"] == "gcr.io/kaniko-project/executor:v1.11.0"
    assert set(container["args"]) >= {
        "--context=tar:///context/context.tar.gz",
        "--dockerfile=docker/Dockerfile",
        f"--destination={order.image}",
        f"--destination={HOST}/team/job:older",
        "--custom-platform=linux/arm64",
        "--target=last",
        '--build-arg=COLOUR=blue, "and" = green',
        "--label=made=here",
        "--insecure-registry=plain.example:5000",
        "--cache=true",
        f"--cache-repo={HOST}/team/job",
    }
    assert "command" not in container


async def test_buildkit_is_told_all_of_the_order(volume: Path, order: ImageBuild) -> None:
    job = await job_of({**BUILDKIT, "cache": f"{HOST}/team/cache"}, volume, order)

    args = container_of(job)["args"]
    assert set(args) >= {
        "--local=context=/build/context",
        "--local=dockerfile=/build/context/docker",
        "--opt=filename=Dockerfile",
        "--opt=platform=linux/arm64",
        "--opt=target=last",
        '--opt=build-arg:COLOUR=blue, "and" = green',
        "--opt=label:made=here",
        f'--output=type=image,"name={HOST}/team/job:older,{order.image}",push=true',
    }
    assert any(
        arg.startswith(f"--import-cache=type=registry,ref={HOST}/team/cache:") for arg in args
    )
    assert '[registry."plain.example:5000"]\nhttp = true' in env_of(job)["BUILDKITD_CONFIG"]


async def test_buildkit_is_rootless_unless_it_may_be_privileged(
    volume: Path, order: ImageBuild
) -> None:
    rootless = await job_of(BUILDKIT, volume, order)
    open_block = {**BUILDKIT, "cluster": {"privileged": True}}
    privileged = await job_of(open_block, volume, order)

    security = container_of(rootless)["securityContext"]
    assert (security["runAsUser"], "privileged" in security) == (1000, False)
    assert env_of(rootless)["BUILDKITD"].startswith("rootlesskit ")
    assert container_of(rootless)["image"].endswith("-rootless")
    assert container_of(privileged)["securityContext"] == {"privileged": True}
    assert env_of(privileged)["BUILDKITD"] == "buildkitd"
    assert not container_of(privileged)["image"].endswith("-rootless")


async def test_a_pod_sees_its_own_context_alone(volume: Path, order: ImageBuild) -> None:
    jobs = PlayedJobs(seen=volume)
    block = {**KANIKO, "cluster": {"context-sub-path": "agents/one"}}
    await builder_of(block, volume, jobs).build(order, lambda _: None)

    [job] = jobs.jobs
    assert jobs.files == [[str(volume / job.name / "context.tar.gz")]]
    mounts = container_of(job)["volumeMounts"]
    assert {
        "name": "context",
        "mountPath": "/context",
        "subPath": f"agents/one/{job.name}",
        "readOnly": True,
    } in mounts
    volumes = job.spec["template"]["spec"]["volumes"]
    assert {"name": "context", "persistentVolumeClaim": {"claimName": "contexts"}} in volumes
    assert list(volume.iterdir()) == []


async def test_the_context_is_a_tar_of_roots_files(volume: Path, order: ImageBuild) -> None:
    found: dict[str, tarfile.TarInfo] = {}

    class Reading(PlayedJobs):
        async def run(self, job: ClusterJob, **more: Any) -> RunEnd:
            await more["prepare"]()
            path = volume / job.name / "context.tar.gz"
            assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (
                0o644,
                0o755,
            )
            with tarfile.open(path, "r:gz") as tar:
                found.update({one.name: one for one in tar})
            self.jobs.append(job)
            return DONE

    before = os.umask(0o077)
    try:
        await builder_of(KANIKO, volume, Reading()).build(order, lambda _: None)
    finally:
        os.umask(before)

    assert set(found) == {"docker", "docker/Dockerfile", "file", "link"}
    assert all((one.uid, one.gid) == (0, 0) for one in found.values())
    assert found["link"].issym()
    assert found["file"].size == len("content")


async def test_the_name_is_that_of_the_image_and_the_agent(volume: Path, order: ImageBuild) -> None:
    first = await job_of(KANIKO, volume, order)
    again = await job_of(KANIKO, volume, order)
    other = await job_of(BUILDKIT, volume, order)
    named = {**KANIKO, "build-job-name": "Team's builds, of very many words " * 9}
    long = await job_of(named, volume, order)

    assert first.name == again.name != other.name
    assert first.name.startswith("wandb-launch-container-build-")
    assert long.name.startswith("team-s-builds-of-very")
    assert all(len(job.name) <= 57 for job in (first, long))


async def test_a_build_gets_the_logins_that_it_needs_and_no_others(
    volume: Path, order: ImageBuild
) -> None:
    def login(name: str) -> RegistryLogin:
        return RegistryLogin(username=name, password=Secret(f"{name}-sesame"))

    hosts = (HOST, "private.example", "other.example")
    logins = KnownLogins({host: [login(host)] for host in hosts})
    jobs = PlayedJobs()
    await builder_of(KANIKO, volume, jobs, logins=logins).build(order, lambda _: None)

    [job] = jobs.jobs
    text = jobs.secrets[0][".dockerconfigjson"].reveal()
    assert [host in text for host in hosts] == [True, True, False]
    assert "sesame" not in repr(job)
    volumes = job.spec["template"]["spec"]["volumes"]
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    assert {"name": "secret-0", "secret": {"secretName": job.name, "items": items}} in volumes
    mount = {"name": "secret-0", "mountPath": "/kaniko/.docker", "readOnly": True}
    assert mount in container_of(job)["volumeMounts"]


async def test_logins_are_asked_for_once_at_first_and_anew_as_they_expire(
    volume: Path, order: ImageBuild
) -> None:
    passwords = [Secret("first-sesame"), Secret("second-sesame")]
    renewed = [RegistryLogin(username="name", password=password) for password in passwords]
    logins = KnownLogins({"private.example": renewed})
    jobs = PlayedJobs()
    await builder_of(KANIKO, volume, jobs, logins=logins).build(order, lambda _: None)

    contents = [secret[".dockerconfigjson"].reveal() for secret in jobs.secrets]
    entries = [json.loads(content)["auths"]["private.example"]["auth"] for content in contents]
    assert [base64.b64decode(entry).decode() for entry in entries] == [
        f"name:{password.reveal()}" for password in passwords
    ]
    assert logins.asked.count("private.example/base:1") == 2


OF_CLOUDS = {**KANIKO, "secret-name": "there", "secret-key": "k"}
ON_ECR = {**OF_CLOUDS, "destination": "1.dkr.ecr.us-east-1.amazonaws.com/r"}
ON_GOOGLE = {**OF_CLOUDS, "destination": "us-docker.pkg.dev/p/r/i"}


@pytest.mark.parametrize(
    ("block", "folder", "variable"),
    [
        ({**BUILDKIT, "cluster": {"registry-secret": "there"}}, "/logins", "DOCKER_CONFIG"),
        (KANIKO, "/kaniko/.docker", ""),
        (OF_CLOUDS, "/kaniko/.docker", ""),
        (ON_ECR, "/root/.aws", ""),
        (ON_GOOGLE, "/kaniko/.config/gcloud", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
    ids=["for buildkit", "of W&B's chart", "another registry", "ECR", "Google"],
)
async def test_a_secret_that_is_there_is_mounted(
    volume: Path, order: ImageBuild, block: dict[str, Any], folder: str, variable: str
) -> None:
    environ = {"WANDB_LAUNCH_KANIKO_AUTH_SECRET": "there"} if block is KANIKO else {}
    job = await job_of(block, volume, order, environ=environ)

    volumes = job.spec["template"]["spec"]["volumes"]
    [found] = [one for one in volumes if one.get("secret", {}).get("secretName") == "there"]
    [mount] = [one for one in container_of(job)["volumeMounts"] if one["name"] == found["name"]]
    assert mount["mountPath"] == folder
    if variable:
        assert env_of(job)[variable].startswith(folder)


async def test_the_operators_words_lie_over_the_job(volume: Path, order: ImageBuild) -> None:
    config = {
        "metadata": {"namespace": "builds", "labels": {"team": "ml"}},
        "spec": {
            "backoffLimit": 9,
            "template": {
                "metadata": {"annotations": {"note": "x"}},
                "spec": {
                    "nodeSelector": {"pool": "builds"},
                    "restartPolicy": "OnFailure",
                    "volumes": [{"name": "more", "emptyDir": {}}],
                    "containers": [
                        {
                            "resources": {"limits": {"memory": "8Gi"}},
                            "env": [{"name": "A", "value": "b"}],
                            "args": ["--cache=false", "--build-arg=MORE=1"],
                        }
                    ],
                },
            },
        },
    }
    job = await job_of({**KANIKO, "kaniko-config": config}, volume, order)

    pod, container = job.spec["template"]["spec"], container_of(job)
    assert (job.namespace, job.labels) == ("builds", {"team": "ml"})
    assert job.spec["template"]["metadata"] == {"annotations": {"note": "x"}}
    assert (pod["nodeSelector"], pod["restartPolicy"]) == ({"pool": "builds"}, "Never")
    assert job.spec["backoffLimit"] == 0
    assert container["resources"] == {"limits": {"memory": "8Gi"}}
    assert env_of(job)["A"] == "b"
    assert "--cache=false" in container["args"]
    assert "--cache=true" not in container["args"]
    assert len([arg for arg in container["args"] if arg.startswith("--build-arg=")]) == 2
    assert {one["name"] for one in pod["volumes"]} == {"context", "more"}


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ({"template": {}}, "'template' is no key of a Job"),
        ({"spec": ["x"]}, "spec must be an object"),
        ({"spec": {"template": {"spec": {"containers": [{}, {}]}}}}, "a list of one object"),
        ({"spec": {"template": {"spec": {"containers": [{"args": ["-v"]}]}}}}, "--NAME=VALUE"),
        ({"spec": {"template": {"spec": {"volumes": {"a": "b"}}}}}, "volumes must be a list"),
        ({"metadata": {"labels": "x"}}, "labels must be an object"),
    ],
)
async def test_words_that_are_no_part_of_a_job_are_refused(
    overlay: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"builder\.kaniko-config: .*{said}"):
        check_overlay(overlay, "builder.kaniko-config")


async def test_nothing_laid_over_a_job_leaves_it_as_it_is() -> None:
    pod = {"containers": [{"name": "build", "args": ["--a=b"]}], "volumes": []}
    made = overlaid({"activeDeadlineSeconds": 5, "template": {"spec": pod}}, {})

    assert made["activeDeadlineSeconds"] == 5
    assert made["template"]["spec"]["containers"] == pod["containers"]


KANIKO_LOG = """\
\x1b[36mINFO\x1b[0m[0000] Retrieving image manifest registry.example/base:1
\x1b[36mINFO\x1b[0m[0001] Executing 0 build triggers
\x1b[36mINFO\x1b[0m[0001] Building stage 'registry.example/base:1' [idx: '0', base-idx: '-1']
\x1b[36mINFO\x1b[0m[0001] RUN echo one
\x1b[36mINFO\x1b[0m[0001] Cmd: /bin/sh
one
\x1b[36mINFO\x1b[0m[0002] RUN make
\x1b[36mINFO\x1b[0m[0002] Running: [/bin/sh -c make]
make: *** No targets
"""
FAILED = f"{KANIKO_LOG}error building image: error building stage: failed to execute command: "
NO_BASE = """\
INFO[0000] Retrieving image manifest registry.example/base:1
error building image: GET https://registry.example/v2/base/manifests/1: MANIFEST_UNKNOWN: manifest \
unknown; map[Tag:1]
"""
NO_LOGIN = """\
error checking push permissions -- make sure you entered the correct tag name, and that you are \
authenticated correctly, and try again: checking push permission for "registry.example/r": POST \
https://registry.example/v2/r/blobs/uploads/: UNAUTHORIZED: authentication required
"""
NOT_PUSHED = f"""{KANIKO_LOG}\
INFO[0003] Pushing image to registry.example/team/job:la-123
error pushing image: failed to push to destination registry.example/team/job:la-123: PUT \
https://registry.example/v2/: unexpected status code 503 Service Unavailable
"""
NO_DOCKERFILE = """\
error building image: parsing dockerfile: dockerfile parse error line 2: unknown instruction: FRO
"""


@pytest.mark.parametrize(
    ("printed", "error", "said"),
    [
        (
            f"{FAILED}waiting for process to exit: exit status 2\n",
            Reason.BUILD_FAILED,
            r"^Step 3 of the Dockerfile exited with 2: RUN make\n.*make: \*\*\* No targets$",
        ),
        (NO_BASE, Reason.IMAGE_NOT_FOUND, "base image registry.example/base:1 cannot be found"),
        (NO_LOGIN, Reason.REGISTRY_DENIED, "registry.example does not let this agent push"),
        (NOT_PUSHED, Unavailable, "The registry registry.example did not take"),
        (NO_DOCKERFILE, Reason.BUILD_FAILED, "unknown instruction: FRO"),
    ],
    ids=["a step", "a base", "no login", "an outage", "the Dockerfile"],
)
async def test_what_kaniko_says_of_its_failure_is_understood(
    volume: Path, order: ImageBuild, printed: str, error: object, said: str
) -> None:
    jobs = PlayedJobs(RunEnd(exit_code=1), printed.encode())
    with pytest.raises(LaunchError, match=rf"(?s){said}") as raised:
        await builder_of(KANIKO, volume, jobs).build(order, lambda _: None)

    assert error in (type(raised.value), getattr(raised.value, "reason", None))
    assert order.log.read_text() == printed


NOT_BEGUN = "error: buildkitd did not start: operation not permitted\n"


@pytest.mark.parametrize(
    ("printed", "end", "error"),
    [
        (
            FAILED,
            RunEnd(exit_code=None, reason=Reason.PREEMPTED, detail="it said why"),
            Unavailable,
        ),
        ("", RunEnd(exit_code=None, reason=Reason.VANISHED, detail="it said why"), Unavailable),
        ("", RunEnd(exit_code=137, reason=Reason.OUT_OF_MEMORY, detail="it said why"), ItemError),
        (
            FAILED,
            RunEnd(exit_code=None, reason=Reason.RUN_TIMEOUT, detail="it said why"),
            ItemError,
        ),
        ("", RunEnd(exit_code=3), ItemError),
        (NOT_BEGUN, RunEnd(exit_code=97), Unavailable),
    ],
    ids=["taken away", "deleted", "memory", "time", "without a word", "not begun"],
)
async def test_what_the_cluster_says_of_an_end_is_told(
    volume: Path, order: ImageBuild, printed: str, end: RunEnd, error: type[LaunchError]
) -> None:
    jobs = PlayedJobs(end, printed.encode())
    said = end.detail or "BuildKit in the cluster (ended with 3|does not work: buildkitd did not)"
    with pytest.raises(error, match=said):
        await builder_of(BUILDKIT, volume, jobs).build(order, lambda _: None)


async def test_stages_are_counted_apart(volume: Path, order: ImageBuild) -> None:
    heard: list[str] = []
    printed = (
        "INFO[0000] Building stage 'a' [idx: '0', base-idx: '-1']\nINFO[0000] RUN one\n"
        "INFO[0000] Building stage 'b' [idx: '1', base-idx: '-1']\nINFO[0000] COPY --from=a x y\n"
        f"INFO[0001] Pushing image to {HOST}/team/job:{64 * 'a'}\n"
        f"INFO[0001] Pushing image to {HOST}/team/job:la-123\n"
    )
    jobs = PlayedJobs(printed=printed.encode())
    await builder_of(KANIKO, volume, jobs).build(order, heard.append)

    assert heard == ["step 2: RUN one", "step stage-1 2: COPY --from=a x y", "pushing the image"]


async def test_contexts_of_killed_lives_go_and_those_of_others_stay(
    volume: Path, order: ImageBuild
) -> None:
    block = {**KANIKO, "timeout": 100}
    job = await job_of(block, volume, order)
    prefix = job.name.rpartition("-")[0]
    old, young, foreign = (volume / name for name in (f"{prefix}-a", f"{prefix}-b", "others-a"))
    for folder in (old, young, foreign):
        folder.mkdir()
    for folder in (old, foreign):
        os.utime(folder, (0, 0))

    await builder_of(block, volume).clean()

    assert sorted(volume.iterdir()) == sorted([young, foreign])


async def test_a_folder_that_is_not_there_is_an_outage_with_its_remedy(tmp_path: Path) -> None:
    builder = builder_of(KANIKO, tmp_path / "missing")

    with pytest.raises(Unavailable, match=r"missing is no folder .*context-claim"):
        await builder.check()


async def test_a_context_that_cannot_be_written_is_an_outage(
    tmp_path: Path, order: ImageBuild
) -> None:
    with pytest.raises(Unavailable, match=r"cannot be written to .*No such file"):
        await job_of(KANIKO, tmp_path / "missing", order)


async def test_an_image_that_is_not_pushed_is_not_built(volume: Path, order: ImageBuild) -> None:
    kept = msgspec.structs.replace(order, push=False)
    with pytest.raises(ItemError, match=r"`builder\.destination`"):
        await job_of(KANIKO, volume, kept)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "kaniko"}, r"builder\.destination is missing"),
        ({**KANIKO}, r"context-claim.*context-folder"),
        ({**KANIKO, "build-context-store": "/folder"}, r"'/folder' is no object store; write s3:"),
        ({**KANIKO, "build-context-store": "s3://"}, r"'s3://' is no object store"),
        ({**BUILDKIT, "cluster": {}, "build-context-store": "s3://b"}, r"context-claim"),
        ({**KANIKO, "cluster": {"context-claim": "c"}}, r"context-folder"),
        ({**BUILDKIT, "address": "tcp://h:1", "cluster": {}}, r"keep one"),
        ({**BUILDKIT, "cluster": {"nodes": 1}}, r"builder\.cluster.*nodes"),
    ],
)
async def test_what_is_missing_or_wrong_is_said_with_its_remedy(
    block: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){said}"):
        builder_as_configured(block)


@pytest.mark.parametrize(
    "more",
    [
        {"secret-name": "a"},
        {"secret-name": "a", "secret-key": "k", "cluster": {"registry-secret": "b"}},
        {"kaniko-config": {"spec": {}}, "cluster": {"job": {"spec": {}}}},
    ],
)
async def test_settings_that_contradict_each_other_are_refused(
    volume: Path, more: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"need each other|keep one"):
        builder_of({**KANIKO, **more}, volume)
