"""The agent's own image, made by deploy/Dockerfile and copied to the cluster's node.

    image = load_agent_image(cluster)     # or the fixture `agent_image`

It has git, ssh and `launch-async`, and needs not be pulled. Who builds first pays; the others, in
this process or another one, find the engine's cache.
"""

import subprocess

from cluster_tools import ROOT, Cluster

from build_tools import one_at_a_time

AGENT_IMAGE = "launch-async-test/agent:cluster"
BUILD_SECONDS = 400.0


def load_agent_image(cluster: Cluster) -> str:
    """Return the image's name; pods that use it may say `imagePullPolicy: IfNotPresent`."""
    build_agent_image(AGENT_IMAGE)
    cluster.load(AGENT_IMAGE)
    return AGENT_IMAGE


def build_agent_image(name: str) -> None:
    """One at a time, so that nobody builds what another one is building."""
    command = ["docker", "build", "-q", "-f", str(ROOT / "deploy/Dockerfile"), "-t", name, "."]
    with one_at_a_time("agent-image"):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
