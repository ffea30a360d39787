"""Known traps: each is said of the settings that have it, with its place, and of no others."""

import pytest

from launch_async.config.load import parse_config
from launch_async.config.sources import Flags, settle
from launch_async.config.traps import find_traps

PLAIN = "queues: [a]\nmax_jobs: 4\nagent: {state_dir: /var/lib/agent}\n"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch):
    """A home that stays: the default state folder is in it."""
    monkeypatch.setenv("HOME", "/home/somebody")


def traps_of(text: str, environ: dict[str, str] | None = None, *queues: str) -> list[str]:
    loaded = parse_config(text.encode(), name="f")
    found = find_traps(settle(loaded, environ or {}, Flags(queues=queues)), environ or {})
    return [f"{trap.where}: {trap.text}" for trap in found]


def test_plain_settings_have_none():
    assert traps_of(PLAIN) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queues: [a]\n", "default: max_jobs is 1: the second item waits"),
        ("queues: [a]\nmax_jobs: 1\n", "f:2:1: max_jobs is 1: the second item waits"),
        ("queues: [a]\nmax_jobs: 0\n", "f:2:1: max_jobs is 0: this agent never takes"),
        ("queues: [a]\nmax_jobs: -1\n", "f:2:1: max_jobs is -1 and so is that of a"),
        ("queue: a\n", "f:1:1: W&B's agent refuses `queue`"),
        ("queues:\n- a\n- b\n- a\n", "f:4:3: the queue a is listed again"),
        ("queues: [{name: a, max_jobs: 0}]\n", "f:1:20: max_jobs of a is 0"),
        ("max_jobs: 2\nqueues: [{name: a, max_jobs: 9}]\n", "f:2:20: max_jobs of a is 9, but"),
        ("queues: [{name: a, start_timeout: 0}]\n", "f:1:10: start_timeout of a is off: a run"),
        ("queues: [{name: a, paused: true}]\n", "f:1:10: a starts paused"),
        ("agent: {targets: {local-proces: {}}}\n", "f:1:19: local-proces is no resource type"),
        ("agent: {targets: {local-process: {max_jobs: 0}}}\n", "max_jobs of local-process is 0"),
        ("agent: {admin: '0.0.0.0:8484'}\n", "f:1:9: the admin endpoint is open to other"),
        ("agent: {admin: '0.0.0.0:8484'}\n", "f:1:9: without agent.admin_token_file nobody"),
        ("agent: {poll: 0.1}\n", "f:1:9: agent.poll is 0.1 s"),
        ("agent: {builds: 9}\n", "f:1:9: agent.builds is 9, but only 8"),
        ("agent: {start_timeout: 0}\n", "f:1:9: agent.start_timeout is off"),
        ("agent: {macros: [NOPE]}\n", "f:1:18: the agent has no variable NOPE"),
        ("agent: {macros: [WANDB_API_KEY]}\n", "f:1:18: WANDB_API_KEY looks like a secret"),
        ("agent: {state_dir: here}\n", "f:1:9: agent.state_dir is relative"),
        ("agent: {state_dir: /tmp/x}\n", "f:1:9: agent.state_dir is a temporary folder"),
        ("environment: {type: azure}\n", "f:1:1: W&B's agent refuses an environment without"),
        ("environment: {}\n", "f:1:1: environment has no effect yet"),
        ("environment: {type: asw, region: x}\n", "f:1:15: environment.type must be one of aws"),
        ("builder: {destination: x}\n", "f:1:1: builder.type must be one of docker"),
        ("registry: {type: ecr, uri: x}\n", "f:1:1: registry is deprecated by W&B"),
        ("registry: {type: ecr, repo_name: x}\n", "f:1:23: W&B's agent cannot use registry.repo"),
        ("registry: {uri: h/r}\n", "f:1:12: W&B's agent pushes nothing to a registry.uri without"),
        ("registry: {type: local, uri: h/r}\n", "f:1:25: registry.uri has no effect with the type"),
        ("registry: {type: gcr, uri: h/r, region: x}\n", "f:1:33: registry.region has no effect"),
        ("builder: {type: kaniko}\n", "f:1:1: kaniko needs builder.build-context-store"),
        ("builder: {type: kaniko, build-context-store: /x}\n", "f:1:25: builder.build-context"),
        ("builder: {type: kaniko, secret-name: x}\n", "builder.secret-key need each other"),
        (
            "builder: {type: kaniko, build-context-store: s3://b, cluster: {context-claim: c}}\n",
            "contexts go by builder.cluster",
        ),
        (
            "builder: {type: buildkit, build-context-store: s3://b, cluster: {}}\n",
            "build-context-store has no effect but for kaniko",
        ),
        ("builder: {type: docker, cluster: {}}\n", "f:1:25: builder.cluster has no effect but for"),
        ("builder: {type: docker, platform: all}\n", "f:1:25: builder.platform must be one of"),
        ("builder: {type: docker, destination: 'https://h/r'}\n", "leave the https:// out"),
        ("builder: {type: docker, destination: 'h/r:v1'}\n", "destination has a tag"),
        ("builder: {type: docker, destination: 'h:5000/r'}\n", "destination has a port"),
        (
            "builder: {type: docker, destination: 1.ecr.us-east-1.amazonaws.com/r}\n",
            "f:1:25: builder.destination must have .dkr",
        ),
        ("builder: {type: docker, destination: a-b.azurecr.io/r}\n", "NAME.azurecr.io/REPOSITORY"),
        ("builder: {type: docker, destination: ab.azurecr.io/r/s}\n", "NAME.azurecr.io/REPOSITORY"),
        ("builder: {type: docker, destination: eu-docker.pkg.dev/p/r}\n", "PROJECT/REPOSITORY"),
    ],
)
def test_a_trap_is_said_with_its_place(text: str, said: str):
    assert any(said in trap for trap in traps_of(text)), traps_of(text)


@pytest.mark.parametrize(
    "destination",
    [
        "1.dkr.ecr.us-east-1.amazonaws.com/a/b",
        "name.azurecr.io/repo",
        "eu-docker.pkg.dev/p/r/i",
        "docker.io/me/image",
    ],
)
def test_a_good_destination_is_no_trap(destination: str):
    text = PLAIN + f"builder: {{type: docker, destination: {destination}}}\n"
    assert not traps_of(text)


def test_the_admin_endpoint_on_loopback_is_no_trap():
    for admin in ("127.0.0.1:1", "localhost:1", "[::1]:1", ""):
        assert not traps_of(f"queues: [a]\nmax_jobs: 4\nagent: {{admin: '{admin}'}}\n")


def test_queues_of_the_command_line_lose_the_files_settings():
    found = traps_of("queues: [{name: a, max_jobs: 2}]\nmax_jobs: 4\n", {}, "a")
    assert found == ["-q: replaces the file's list, with the settings of a"]


def test_variables_that_have_no_effect_are_named_with_what_is_done_instead():
    why = "has no effect: each run has a Secret of its own, which goes with the run"
    assert traps_of(PLAIN, {"WANDB_RELEASE_NAME": "x"}) == [f"WANDB_RELEASE_NAME: {why}"]
    [found] = traps_of(PLAIN, {"WANDB_LAUNCH_CODE_PVC_NAME": "x"})
    assert "pods fetch code" in found


def test_values_of_registries_are_not_shown():
    text = PLAIN + "registry: {type: acr, uri: 'https://user:hunter2@h/r:t', password: hunter2}\n"
    assert "hunter2" not in "".join(traps_of(text))
