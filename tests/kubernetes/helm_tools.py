"""The agent's chart, as tests render and install it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from cluster_tools import ROOT, script

CHART = ROOT / "deploy/helm/launch-async-agent"
MINIMAL = CHART / "ci/minimal-values.yaml"
FULL = CHART / "ci/full-values.yaml"
KUBE_VERSION = "1.34.0"
"""What charts are rendered for where no cluster is asked."""


class Helm:
    """The program, with folders of its own."""

    def __init__(self, folder: Path, kubeconfig: Path | None = None) -> None:
        self._program = script("helm", seconds=600).strip()
        self._environment = {
            **os.environ,
            **{f"HELM_{name}_HOME": str(folder / name) for name in ("CACHE", "CONFIG", "DATA")},
            "KUBECONFIG": str(kubeconfig or folder / "none"),
        }

    def run(self, *words: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def do(self, *words: str, seconds: float = 120.0) -> str:
        """What it prints; the test fails with its words if it fails."""
        done = self.run(*words, seconds=seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def template(self, *words: str, release: str = "launch-agent") -> str:
        version = ["--kube-version", KUBE_VERSION]
        return self.do("template", release, str(CHART), *version, *words)

    def objects(self, *words: str) -> list[dict[str, Any]]:
        """What it makes of the chart, those without content left out."""
        return [one for one in yaml.safe_load_all(self.template(*words)) if one]
