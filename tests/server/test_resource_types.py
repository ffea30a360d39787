"""Queues of resource types that plug-ins bring, on a server that was started with their names."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from launch_harness import Launch, spec
from server_harness import Http, Template, running_server

from launch_async.domain.errors import ConfigError
from launch_async.server.settings import check_resource_type

pytestmark = pytest.mark.anyio

CLI = "import sys; sys.argv[0] = 'launch-async'; from launch_async.cli.main import main; main()"


@pytest.fixture
async def launch(http: Http, tmp_path: Path, template: Template) -> AsyncGenerator[Launch]:
    types = ("slurm", "pbs")
    async with running_server(tmp_path / "own", template, extra_resource_types=types) as server:
        yield Launch(Http(http.session, server))


async def test_an_item_takes_its_queues_type_and_config(launch: Launch) -> None:
    await launch.queue(
        kind="slurm", args={"partition": "{{p}}"}, variables={"p": {"schema": {"type": "string"}}}
    )
    own = {"slurm": {"nodes": 2}}
    await launch.push(
        spec=spec(resource="slurm", resource_args=own),
        templateVariableValues=json.dumps({"p": "gpu"}),
    )
    popped = await launch.pop()
    assert popped is not None
    assert popped["runSpec"]["resource"] == "slurm"
    assert popped["runSpec"]["resource_args"] == {"slurm": {"partition": "gpu", "nodes": 2}}


async def test_types_stay_apart_all_the_same(launch: Launch) -> None:
    await launch.queue(kind="slurm")
    for wrong in ({"resource": "pbs"}, {"resource_args": {"pbs": {}}}, {"resource": "lsf"}):
        assert (await launch.try_push(spec=spec(**wrong)))[0] == 400
    await launch.queue("w", kind="local-process")
    assert (await launch.try_push("w"))[0] == 200


@pytest.mark.parametrize("name", ["", "a b", "a,b", "x" * 65, "-slurm", "slurm\n"])
def test_what_no_type_can_be_called_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no resource type"):
        check_resource_type(name)


@pytest.mark.parametrize(
    ("words", "variable"), [(["--extra-resource-type", "a,b"], ""), ([], "slurm a,b")]
)
def test_a_wrong_name_stops_the_start_with_one_line(
    words: list[str], variable: str, tmp_path: Path
) -> None:
    started = subprocess.run(
        [sys.executable, "-c", CLI, "server", "--data", str(tmp_path), *words],
        env={"PATH": os.environ["PATH"], "LAUNCH_ASYNC_EXTRA_RESOURCE_TYPES": variable},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert started.returncode == 2
    assert "'a,b' is no resource type" in started.stderr
    assert "Traceback" not in started.stderr
