"""The conformance suite on the runners of this package, and what only these have in common."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from runner_backends import DockerBackend, ProcessBackend, make_order

from launch_async.domain.errors import ItemError, Reason
from launch_async.testing import RunnerConformance, end_of

PLAIN = ("asyncio", {"use_uvloop": False})
UVLOOP = ("asyncio", {"use_uvloop": True})


@pytest.fixture(
    params=[
        pytest.param(("process", PLAIN), id="process"),
        pytest.param(("process", UVLOOP), id="process-uvloop"),
        pytest.param(("docker", PLAIN), id="docker", marks=pytest.mark.docker),
    ]
)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def anyio_backend(kind: Any) -> Any:
    return kind[1]


@pytest.fixture
async def backend(
    kind: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[ProcessBackend | DockerBackend, None]:
    if kind[0] == "process":
        made = ProcessBackend(tmp_path / "state")
    else:
        engine = request.getfixturevalue("docker_engine").socket_path
        made = DockerBackend(request.getfixturevalue("tiny_image"), engine, tmp_path)
    yield made
    await made.clean_up()


class TestOurRunners(RunnerConformance):
    async def test_a_queue_may_add_variables(self, backend: Any) -> None:
        order = make_order(backend, 'echo "$EXTRA"', resource_args={"env": ["EXTRA=more=yes"]})
        async with backend.life() as runner:
            handle = await runner.launch(order)
            await end_of(runner, handle)
            assert await runner.log_tail(handle, lines=3) == ("more=yes",)

    @pytest.mark.parametrize(
        ("resource_args", "words"),
        [
            ({"envv": []}, "Did you mean `env`"),
            ({"env": ["HOME"]}, "bare"),
        ],
    )
    async def test_wrong_resource_arguments_are_named(
        self, backend: Any, resource_args: dict[str, Any], words: str
    ) -> None:
        async with backend.life() as runner:
            with pytest.raises(ItemError, match=words) as wrong:
                await runner.launch(make_order(backend, "true", resource_args=resource_args))
        assert wrong.value.reason is Reason.RESOURCE_ARGS_INVALID
