"""docs/configuration.md names every setting, and its defaults are those of the code."""

import re
from pathlib import Path

import click
import msgspec
import pytest
import yaml

import launch_async
from launch_async.cli.main import SUBCOMMANDS, main
from launch_async.config.cluster_builds import ClusterBuildsSection
from launch_async.config.images import BuilderSection, DockerSection, RegistryLoginConfig
from launch_async.config.kubernetes import KubernetesSection, LeaseSection
from launch_async.config.model import (
    AgentSection,
    LaunchConfig,
    OrphansConfig,
    QueueConfig,
    RetentionConfig,
    StartTimeouts,
    TargetConfig,
)
from launch_async.domain.git import GitSettings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
SECTIONS = {
    "Top level": LaunchConfig,
    "One queue": QueueConfig,
    "agent": AgentSection,
    "One target": TargetConfig,
    "start_timeouts": StartTimeouts,
    "orphans": OrphansConfig,
    "retention": RetentionConfig,
    "builder": BuilderSection,
    "builder.cluster": ClusterBuildsSection,
    "One registry": RegistryLoginConfig,
    "git": GitSettings,
    "docker": DockerSection,
    "kubernetes": KubernetesSection,
    "lease": LeaseSection,
}

_CODE = re.compile(r"`([^`]*)`")


def rows_of(heading: str) -> list[list[str]]:
    """Rows of the tables below a heading of the page, as cells."""
    _, found, below = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")
    assert found, f"the page has no heading {heading!r}"
    section = re.split(r"^#", below, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def rows_by_name(heading: str) -> dict[str, list[str]]:
    return {name: row for row in rows_of(heading) for name in _CODE.findall(row[0])}


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_on_the_page_and_no_other(heading: str):
    fields = msgspec.structs.fields(SECTIONS[heading])
    assert set(rows_by_name(heading)) == {field.encode_name for field in fields}


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_default_on_the_page_is_that_of_the_code(heading: str):
    rows = rows_by_name(heading)
    for field in msgspec.structs.fields(SECTIONS[heading]):
        if field.default is msgspec.NODEFAULT or isinstance(field.default, msgspec.Struct):
            continue
        shown = yaml.safe_load(_CODE.findall(rows[field.encode_name][1])[0])
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert (shown, type(shown)) == (default, type(default)), field.encode_name


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_flag_is_on_the_page_and_no_other(name: str):
    group = main.make_context("launch-async", [name], resilient_parsing=True)
    command = main.get_command(group, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=group)
    rows = rows_by_name(f"launch-async {name}")
    flags: set[str] = set()
    for param in command.get_params(context):
        flags.update(param.opts)
        default = param.get_default(context)
        if isinstance(default, str | int | Path) and default not in ("", 0, False):
            assert f"`{default}`" in rows[param.opts[0]][1], param.opts
    assert set(rows) == flags


def test_every_variable_of_ours_is_on_the_page():
    source = Path(launch_async.__file__).parent
    named = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(
            r"[\"'](LAUNCH_ASYNC_[A-Z_]+)[\"']", path.read_text(encoding="utf-8")
        )
    }
    table = re.findall(r"^\| `(LAUNCH_ASYNC_[A-Z_]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert named == set(table)
