"""launch-config.yaml: what is read, and what is said of what is wrong."""

from pathlib import Path
from typing import get_args

import pytest

from launch_async.adapters.runners.docker.policy import OPENING
from launch_async.config.images import Opening
from launch_async.config.load import load_config, load_default, parse_config
from launch_async.config.model import AgentSection, LaunchConfig, QueueConfig
from launch_async.domain.errors import ConfigError

WANDB_FILE = b"""
queues:
  - default
  - gpu
entity: my-team
max_jobs: "-1"
max_schedulers: 2
secure_mode: false
verbosity: 0
stopped_run_timeout: 30
environment:
  type: aws
  region: us-east-1
registry:
  type: ecr
  uri: 1.dkr.ecr.us-east-1.amazonaws.com/repo
builder:
  type: kaniko
  build-context-store: s3://bucket/prefix
  kaniko-config:
    spec: {}
"""


def test_a_file_of_the_wandb_agent_is_read_as_it_is():
    loaded = parse_config(WANDB_FILE, name="c.yaml")
    config = loaded.config
    assert config.queues == ("default", "gpu")
    assert (config.entity, config.max_jobs, config.max_schedulers) == ("my-team", -1, 2)
    assert config.stopped_run_timeout == 30
    assert config.builder is not None
    assert config.builder["build-context-store"] == "s3://bucket/prefix"
    assert loaded.warnings == ()


def test_an_empty_file_has_the_defaults():
    assert parse_config(b"# nothing\n", name="c.yaml").config == LaunchConfig()


def test_a_single_queue_by_its_old_key_is_read():
    assert parse_config(b"queue: gpu\n", name="c.yaml").config.queues == ("gpu",)


def test_queues_may_be_objects_with_a_limit():
    config = parse_config(b"queues: [a, {name: b, max_jobs: 2}]\n", name="c.yaml").config
    assert config.queue_configs() == (QueueConfig(name="a"), QueueConfig(name="b", max_jobs=2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("entity: me\nmax_job: 5\n", "c.yaml:2:1: unknown key `max_job`; did you mean `max_jobs`?"),
        (
            "agent:\n  grase: 5\n",
            "c.yaml:2:3: unknown key `grase` in `agent`; did you mean `grace`?",
        ),
        (
            "queues:\n - name: a\n   max_job: 1\n",
            "c.yaml:3:4: unknown key `max_job` in `queues[0]`",
        ),
        ("queues: [a, 7]\n", "c.yaml:1:13: queues[1]: Expected"),
        ("entity: no\n", "c.yaml:1:9: entity: Expected `str | null`, got `bool`"),
        ("max_jobs: 1\nmax_jobs: 2\n", "c.yaml:2:1: `max_jobs` is given twice"),
        ("max_jobs: -2\n", "c.yaml:1:11: max_jobs: Expected `int` >= -1"),
        ("loop: trio\n", "c.yaml:1:7: loop: Invalid enum value 'trio'"),
        ("queues: [\n", "c.yaml:2:1: not valid YAML"),
        ("- a\n", "c.yaml:1:1: expected keys and values"),
        ("zzz: 1\n", "unknown key `zzz`; see docs/configuration.md"),
        ("base_url: x\n", "c.yaml:1:1: unknown key `base_url`; the address of the API is WANDB_B"),
        ("queue: a\nqueues: [b]\n", "c.yaml:1:1: unknown key `queue`; name all queues in `queues`"),
        ("agent: {poll: 60}\n", "c.yaml:1:8: agent: poll_max (5) is less than poll (60)"),
        ("agent: {orphans: {act: end}}\n", "unknown key `act` in `agent.orphans`; did you mean"),
        (
            "agent: {targets: {local-process: {max_job: 1}}}\n",
            "in `agent.targets[...]`; did you mean `max_jobs`?",
        ),
        ("agent: {macros: [A-B]}\n", "c.yaml:1:18: agent.macros[0]: Expected `str` matching"),
        ("entity: 2024-13-45\n", "c.yaml:1:9: not valid YAML: not a valid timestamp"),
        ("max_jobs: 0b_\n", "c.yaml:1:11: not valid YAML: not a valid int"),
        ("max_jobs: !!int a\n", "c.yaml:1:11: not valid YAML: not a valid int"),
        ("secure_mode: !!bool a\n", "c.yaml:1:14: not valid YAML: not a valid bool"),
        ("entity: !!timestamp a\n", "c.yaml:1:9: not valid YAML: not a valid timestamp"),
        (f"max_jobs: {'9' * 5000}\n", "c.yaml:1:11: not valid YAML: not a valid int"),
        (f"max_jobs: '{'9' * 5000}'\n", "c.yaml:1:11: max_jobs: Expected `int`, got `str`"),
        ("1: a\n", "c.yaml:1:1: the file: each key must be a text; quote it"),
        ("queues: ['']\n", "c.yaml:1:10: queues[0]: Expected `str` of length >= 1"),
        ("agent: {git: {timeout_seconds: .nan}}\n", "agent.git.timeout_seconds: Expected `float`"),
        ("agent: {docker: {allow: [sudo]}}\n", "agent.docker.allow[0]: Invalid enum value 'sudo'"),
        ("agent: {docker: {volumes: [data]}}\n", "agent.docker.volumes[0]: Expected `str` match"),
        ("agent: {docker: {env: ['*']}}\n", "agent.docker.env[0]: Expected `str` matching"),
        ("agent: {registries: [{host: 'a b'}]}\n", "agent.registries[0].host: Expected `str` m"),
        ("queues: [{name: a, weight: .inf}]\n", "queues[0].weight: Expected `float` <= 1000.0"),
        ("agent: {run_timeout: .nan}\n", "agent.run_timeout: Expected `float` >= 0.0"),
    ],
)
def test_an_error_names_file_line_and_remedy(text: str, said: str):
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), name="c.yaml")
    assert said in str(caught.value)


def test_unknown_keys_in_tolerant_sections_are_warnings():
    lines = ["environment:", "  type: gcp", "  region: x", "  project: p"]
    lines += ["builder:", "  type: docker", "  platfrom: y"]
    warnings = parse_config("\n".join(lines).encode(), name="c.yaml").warnings
    assert warnings == (
        "c.yaml:4:3: `environment.project` is not known and ignored",
        "c.yaml:7:3: `builder.platfrom` is not known and ignored; did you mean `platform`?",
    )


def test_a_missing_file_is_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read"):
        load_config(tmp_path / "no.yaml")


def test_bytes_that_are_no_text_are_one_line():
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        parse_config(b"\xff\xfe\x00a: \x80", name="c.yaml")


def test_the_example_is_a_valid_file():
    example = Path(__file__).parents[2] / "configs" / "launch-config.yaml"
    loaded = load_config(example)
    assert loaded.warnings == ()
    assert [queue.max_jobs for queue in loaded.config.queue_configs()] == [1, 2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("queues: [{name: a, max_jobs: 1}, b, a]", "f:1:37: the queue `a` is listed twice"),
        ("a: &x [*x]", "nested too deeply, or a part of itself"),
        ("agent: {poll: 1.0e-9}", "agent.poll: Expected `float` >= 0.05"),
        ("agent: {heartbeat: 0}", "agent.heartbeat: Expected `float` >= 0.05"),
        ("agent: {heartbeat: .inf}", "agent.heartbeat: Expected `float` <= 30.0"),
        ("stopped_run_timeout: 31536001", "stopped_run_timeout: Expected `int` <= 31536000"),
    ],
)
def test_what_would_harm_later_is_refused_now(text: str, complaint: str):
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), name="f")
    assert complaint in str(caught.value)


def test_a_queue_that_is_named_twice_is_polled_once():
    config = parse_config(b"queues: [a, b, a]", name="f").config
    assert [queue.name for queue in config.queue_configs()] == ["a", "b"]


def test_a_few_lines_of_aliases_are_no_billions_of_values():
    lines = ["environment:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match=r"f: too much in it"):
        parse_config("\n".join(lines).encode(), name="f")


def test_an_alias_is_read_as_what_it_stands_for():
    text = b"queues:\n - &a {name: a, max_jobs: 3}\n - {<<: *a, name: b}\n"
    assert [queue.max_jobs for queue in parse_config(text, name="f").config.queue_configs()] == [
        3,
        3,
    ]


def test_a_default_file_that_is_there_and_cannot_be_read_is_no_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_default().config == LaunchConfig()
    (tmp_path / ".config" / "wandb" / "launch-config.yaml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"launch-config\.yaml: cannot be read"):
        load_default()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "agent.state_dir is empty"),
        ("a\0b", "agent.state_dir holds a null byte"),
        ("~nobody-of-that-name/x", "agent.state_dir begins with ~nobody-of-that-name, and there"),
    ],
)
def test_a_state_folder_that_is_no_path_is_named(path: str, said: str):
    config = LaunchConfig(agent=AgentSection(state_dir=path))
    with pytest.raises(ConfigError) as caught:
        _ = config.state_dir
    assert said in str(caught.value)


def test_what_may_be_allowed_is_what_opens_the_machine():
    assert set(get_args(Opening)) == {*OPENING, "user", "volume"}
