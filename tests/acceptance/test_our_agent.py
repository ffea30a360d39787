"""Our agent with real processes, containers and the real wandb client: how items end."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from agent_harness import ENDED, Fleet, RunningAgent, StatusReader
from programs import ControlPlane, Shell, program_environment

from databases import Postgres

pytestmark = [pytest.mark.acceptance, pytest.mark.docker]

CONFIG = """
queues:
  - {{name: processes, max_jobs: 1}}
  - {{name: containers, max_jobs: 2}}
max_jobs: -1
agent:
  state_dir: {state_dir}
  admin: 127.0.0.1:0
  poll: 0.5
  heartbeat: 1
"""
TRAIN = """
import wandb
with wandb.init(config={"lr": 0.1, "steps": 5}) as run:
    for step in range(run.config.steps):
        run.log({"loss": 1 / (step + 1)})
        print(f"step {step}")
    run.summary["lr_used"] = run.config.lr
"""
EXIT_3_AFTER_INIT = """
import sys, wandb
wandb.init()
print("about to leave after init")
sys.exit(3)
"""
JOBS = {
    "train": TRAIN,
    "silent": "print('no init here')\n",
    "exit3": "import sys\nprint('about to leave')\nsys.exit(3)\n",
    "exit3-after-init": EXIT_3_AFTER_INIT,
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, database: Postgres | None) -> Iterator[Fleet]:
    """One server with queues and jobs for all tests of this file: an environment is made once."""
    folder = tmp_path_factory.mktemp("fleet")
    with (
        ControlPlane.start(folder / "server", database) as control_plane,
        ExitStack() as programs,
    ):
        env = program_environment(folder / "home", url=control_plane.url, key=control_plane.key)
        fleet = Fleet(control_plane, Shell(folder / "work", env=env, programs=programs))
        fleet.make_queue("processes", "local-process")
        fleet.make_queue("containers", "local-container")
        for name, script in JOBS.items():
            fleet.make_code_job(name, script, requirements="wandb==0.31.*\n")
        yield fleet


@pytest.fixture(scope="module")
def agent(
    fleet: Fleet,
    tmp_path_factory: pytest.TempPathFactory,
    made_environments: Callable[[Path], Path],
) -> Iterator[RunningAgent]:
    state_dir = made_environments(tmp_path_factory.mktemp("agent") / "state")
    with fleet.agent(CONFIG.format(state_dir=state_dir)) as running:
        yield running


@pytest.fixture
def job(fleet: Fleet) -> Callable[[str], str]:
    return lambda name: f"{fleet.entity}/jobs/{name}:latest"


def test_an_item_that_wandb_launch_pushed_becomes_a_whole_run(
    fleet: Fleet, agent: RunningAgent, job: Callable[[str], str]
):
    config = json.dumps({"overrides": {"run_config": {"lr": 0.05}}})
    words = ["--job", job("train"), "--queue", "processes", "--config", config]
    target = ["--entity", fleet.entity, "--project", "target"]
    printed = fleet.shell.run("wandb", "launch", *words, *target)
    assert "Added run to queue processes" in printed
    agent.wait_for_status("launched", 1, within_seconds=120)
    run_id = agent.status()["items"][0]["run"].split("/")[-1]
    agent.wait_for_status("items", [])
    run = fleet.run(run_id)
    assert run is not None
    config_of_run = {key: part["value"] for key, part in json.loads(run["config"]).items()}
    assert config_of_run["lr"] == 0.05
    assert config_of_run["_wandb"]["launch_queue_name"] == "processes"
    assert (run["state"], run["historyLineCount"]) == ("finished", 5)
    assert json.loads(run["summaryMetrics"])["lr_used"] == 0.05
    printed_by_run = [edge["node"]["line"] for edge in run["logLines"]["edges"]]
    assert any("step 4" in line for line in printed_by_run)


def test_queued_run_of_the_sdk_waits_to_the_end(
    fleet: Fleet, agent: RunningAgent, job: Callable[[str], str]
):
    script = f"""
from wandb.sdk.launch import launch_add
queued = launch_add(job={job("train")!r}, queue_name="processes", entity={fleet.entity!r},
                    project="target", config={{"overrides": {{"run_config": {{"lr": 0.2}}}}}})
run = queued.wait_until_finished()
print("ended", run.state, queued.state, run.summary["lr_used"])
"""
    fleet.shell.write("wait.py", script)
    assert "ended finished finished 0.2" in fleet.shell.run("python", "wait.py")


def test_exit_0_without_a_run_is_failed_with_that_reason(
    fleet: Fleet, agent: RunningAgent, job: Callable[[str], str]
):
    item = fleet.push("processes", job=job("silent"))
    failed = fleet.wait_for_item("processes", item, ENDED)
    assert failed["state"] == "FAILED"
    assert "exited with 0 but never called wandb.init" in failed["message"]
    assert "no init here" in failed["message"]


@pytest.mark.parametrize("name", ["exit3", "exit3-after-init"])
def test_exit_3_is_failed_with_code_and_last_lines(
    name: str, fleet: Fleet, agent: RunningAgent, job: Callable[[str], str]
):
    item = fleet.push("processes", job=job(name))
    fleet.wait_for_item("processes", item, ENDED)
    agent.wait_for_status("items", [])
    failed = fleet.item("processes", item)
    assert (failed["state"], failed["stage"]) == ("FAILED", "run")
    assert "exited with code 3" in failed["message"]
    assert "about to leave" in failed["message"]
    path, bundle = failed["filePaths"]
    assert path == f"{item}/error/error.log"
    assert bundle == f"{item}/bundle.json"
    error_file = fleet.file_of(agent.status()["name"], path)
    assert "exit code: 3" in error_file
    assert "about to leave" in error_file


def test_an_image_that_exits_3_is_failed_with_code_and_last_lines(
    fleet: Fleet, agent: RunningAgent, wandb_image: str
):
    leave = "import sys; print('about to leave'); sys.exit(3)"
    item = fleet.push(
        "containers",
        docker={"docker_image": wandb_image},
        overrides={"args": ["python", "-c", leave]},
    )
    failed = fleet.wait_for_item("containers", item, ENDED)
    agent.wait_for_status("items", [])
    failed = fleet.item("containers", item)
    assert failed["state"] == "FAILED"
    assert "exited with code 3" in failed["message"]
    assert "about to leave" in failed["message"]


def test_a_job_that_does_not_exist_is_named(fleet: Fleet, agent: RunningAgent):
    item = fleet.push("processes", job=f"{fleet.entity}/jobs/nosuch:latest")
    failed = fleet.wait_for_item("processes", item, ENDED)
    assert "jobs/nosuch:latest does not exist" in failed["message"]


def test_limits_hold_and_both_queues_are_always_busy(
    fleet: Fleet, agent: RunningAgent, job: Callable[[str], str], wandb_image: str
):
    script = TRAIN.replace("\nwith", "\nimport time\nwith") + "    time.sleep(1)\n"
    container = {"docker_image": wandb_image}
    overrides = {"args": ["python", "-c", script]}
    items = [("processes", fleet.push("processes", job=job("train"))) for _ in range(10)]
    items += [
        ("containers", fleet.push("containers", docker=container, overrides=overrides))
        for _ in range(10)
    ]
    with StatusReader(agent) as reader:
        ends = [fleet.wait_for_item(*item, ENDED, within_seconds=240)["state"] for item in items]
    assert ends == ["FINISHED"] * 20
    limits = {"processes": 1, "containers": 2}
    for queue, limit in limits.items():
        counts = [sample[queue] for sample in reader.samples]
        assert max(counts) == limit
        full = [index for index, count in enumerate(counts) if count == limit]
        work = counts[full[0] : full[-1] + 1]
        assert work.count(limit) / len(work) > 0.9, f"{queue} was idle with work waiting: {work}"


def test_probes_and_metrics_speak_of_this_agent(fleet: Fleet, agent: RunningAgent):
    assert agent.get("/livez") == (200, "ok\n")
    code, text = agent.get("/readyz?verbose")
    assert code == 200, text
    assert "[+]queue/processes ok" in text
    metrics = agent.get("/metrics")[1]
    assert 'launch_agent_items{phase="running",queue="processes"}' in metrics
    assert "launch_agent_launched_total" in metrics


def test_no_key_reaches_the_log(fleet: Fleet, agent: RunningAgent):
    assert "item moved" in agent.program.output
    assert fleet.control_plane.key not in agent.program.output
    assert fleet.control_plane.key not in Path(fleet.shell.folder, "launch-config.yaml").read_text()


def test_the_service_stops_an_agent_and_a_second_one_cannot_have_its_folder(
    fleet: Fleet, tmp_path: Path
):
    config = CONFIG.format(state_dir=tmp_path / "state")
    with fleet.agent(config) as other:
        words = ["launch-async", "agent", "-c", "launch-config.yaml"]
        said = fleet.shell.run(*words, code=3, within_seconds=30)
        assert "another agent uses the state folder" in said
        name = other.status()["name"]
        agents = fleet.control_plane.ask(AGENTS, entity=fleet.entity)["project"]["launchAgents"]
        [agent_id] = [agent["id"] for agent in agents if agent["name"] == name]
        fleet.control_plane.ask(STOP_AGENT, agent=agent_id)
        assert other.program.wait(within_seconds=20) == 0
        agents = fleet.control_plane.ask(AGENTS, entity=fleet.entity)["project"]["launchAgents"]
        [status] = [agent["agentStatus"] for agent in agents if agent["id"] == agent_id]
        assert status == "KILLED"


AGENTS = """query Agents($entity: String!) {
  project(name: "model-registry", entityName: $entity) {
    launchAgents { id name agentStatus }
  }
}"""
STOP_AGENT = """mutation Stop($agent: ID!) {
  stopLaunchAgent(input: { launchAgentId: $agent }) { success }
}"""
