"""The version that an agent reports of itself: its own, or what its operator says."""

from pathlib import Path

import anyio
import pytest

from launch_async.adapters.queues.wandb import OWN_VERSION
from launch_async.compose.agent import open_agent
from launch_async.config.login import Login
from launch_async.config.model import AgentSection, LaunchConfig
from real_server import ENTITY, real_server

pytestmark = pytest.mark.anyio

AGENTS = """query Agents($entity: String!) {
  project(name: "model-registry", entityName: $entity) { launchAgents { version } }
}"""


@pytest.mark.parametrize(
    ("environ", "version"),
    [({}, OWN_VERSION), ({"WANDB_AGENT_VERSION": "chart@1.2"}, "chart@1.2")],
)
async def test_the_operator_may_name_the_version(
    tmp_path: Path, environ: dict[str, str], version: str
):
    async with real_server(tmp_path / "server") as server:
        await server.client.upsert_queue("q", resource="local-process", config={})
        config = LaunchConfig(
            queues=("q",), entity=ENTITY, agent=AgentSection(state_dir=str(tmp_path / "state"))
        )
        login = Login(base_url=server.url, api_key=server.key)
        async with open_agent(config, login, environ) as agent:
            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(agent.run)
                    while not agent.view().name:  # empty until it is registered
                        await anyio.sleep(0.01)
                    agent.stop("enough")
        answer = await server.transport.execute(AGENTS, {"entity": ENTITY})
    assert [one["version"] for one in answer["project"]["launchAgents"]] == [version]
