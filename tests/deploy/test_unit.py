"""The systemd units, by systemd's own word where it is installed."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from launch_async.cli.output import EXIT_CONFIG, EXIT_UNFIT
from launch_async.config.model import AgentSection

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "launch-agent.service"
MOST_EXPOSED = {"launch-agent.service": 4.5, "launch-server.service": 3.5}
"""Of 10, by `systemd-analyze security`; what jobs need keeps the agent's from less."""


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


def test_a_stop_of_the_unit_leaves_jobs_alone(service: configparser.SectionProxy):
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"


def test_jobs_run_as_another_user_than_the_control_plane(service: configparser.SectionProxy):
    server = (DEPLOY / "launch-server.service").read_text().splitlines()
    assert f"User={service['User']}" not in server


def test_what_asks_for_a_person_is_not_restarted(service: configparser.SectionProxy):
    assert service["Restart"] == "on-failure"
    codes = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert codes == {EXIT_CONFIG, EXIT_UNFIT}


def test_systemd_waits_longer_than_the_agents_grace(service: configparser.SectionProxy):
    assert float(service["TimeoutStopSec"]) > AgentSection().grace


def test_the_sandbox_leaves_jobs_their_devices_and_their_temporary_files(
    service: configparser.SectionProxy,
):
    hiding = {"PrivateTmp", "PrivateDevices", "ProtectClock", "DevicePolicy", "SystemCallFilter"}
    assert not hiding & set(service)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", MOST_EXPOSED)
def test_systemd_understands_the_unit_and_finds_it_closed(name: str, tmp_path: Path):
    # systemd looks for the program; ours is not under /opt while we test.
    unit = tmp_path / name
    installed = (DEPLOY / name).read_text()
    unit.write_text(installed.replace("/opt/launch-async/bin/launch-async", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in verified.stderr.splitlines() if name in line]
    assert complaints == []
    exposed = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={int(MOST_EXPOSED[name] * 10)}",
            str(unit),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert exposed.returncode == 0, exposed.stdout + exposed.stderr
