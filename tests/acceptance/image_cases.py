"""The ways from a job to a container: code and git jobs by each Dockerfile rule, image jobs.

Every case prints `ran by NAME`, where NAME tells which rule made its image or command, and logs
`lr` of its config. `{base}` is an image with Python and wandb.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

TRAIN = """\
import os, sys, wandb
with wandb.init(config={"lr": 0.1}) as run:
    print("ran by", os.environ.get("RULE", "generated"), *sys.argv[1:])
    run.summary["lr_used"] = run.config.lr
"""
OWN = """\
FROM {base}
ENV RULE=%s
WORKDIR /app
COPY . .
"""
WANDB = "wandb==0.31.*\n"
PROJECT = """\
[project]
name = "train"
version = "1"
dependencies = ["wandb==0.31.*"]
"""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One job and one launch of it."""

    name: str
    kind: Literal["code", "git", "image"]
    over: Literal["https", "ssh"] = "https"
    """How a git job's code is fetched."""
    files: Mapping[str, str] = {}
    """Of the job's code, by path; a value of `{base}` is filled in."""
    create: tuple[str, ...] = ()
    """Further words of `wandb job create`."""
    entry_point: str = "python train.py"
    launch: tuple[str, ...] = ()
    """Further words of `wandb launch`."""
    config: Mapping[str, Any] = {}
    """Launch config, as of `wandb launch --config`."""
    prints: str
    builds: bool = True


CASES = (
    Case(
        name="code-requirements",
        kind="code",
        files={"train.py": TRAIN, "requirements.txt": WANDB},
        prints="ran by generated",
    ),
    Case(
        name="code-pyproject",
        kind="code",
        files={
            "train.py": TRAIN,
            "pyproject.toml": PROJECT,
        },
        prints="ran by generated",
    ),
    Case(
        name="code-subfolder",
        kind="code",
        files={"src/train.py": TRAIN, "src/requirements.txt": WANDB},
        create=("--build-context", "src"),
        prints="ran by generated",
    ),
    Case(
        name="code-entry-point-of-the-item",
        kind="code",
        files={"train.py": "exit(9)\n", "other.py": TRAIN, "requirements.txt": WANDB},
        launch=("--entry-point", "python other.py"),
        prints="ran by generated",
    ),
    Case(
        name="code-args-of-the-item",
        kind="code",
        files={"train.py": TRAIN, "requirements.txt": WANDB},
        config={"overrides": {"args": ["--lr", "0.3", "a b", "$HOME"]}},
        prints="ran by generated --lr 0.3 a b $HOME",
    ),
    Case(
        name="code-dockerfile-of-the-job",
        kind="code",
        files={"train.py": TRAIN, "docker/Dockerfile.train": OWN % "job"},
        create=("--dockerfile", "docker/Dockerfile.train"),
        prints="ran by job",
    ),
    Case(
        name="code-dockerfile-and-context-of-the-job",
        kind="code",
        files={"part/train.py": TRAIN, "part/Dockerfile": OWN % "context", "big.bin": "x"},
        create=("--dockerfile", "Dockerfile", "--build-context", "part"),
        prints="ran by context",
    ),
    Case(
        name="code-dockerfile-wandb",
        kind="code",
        files={"train.py": TRAIN, "Dockerfile.wandb": OWN % "beside"},
        prints="ran by beside",
    ),
    Case(
        name="code-dockerfile-of-the-item",
        kind="code",
        files={
            "train.py": TRAIN,
            "Dockerfile.wandb": OWN % "beside",
            "Dockerfile.other": OWN % "item",
        },
        launch=("--dockerfile", "Dockerfile.other"),
        prints="ran by item",
    ),
    Case(
        name="code-base-image-of-the-job",
        kind="code",
        files={"train.py": TRAIN},
        create=("--base-image", "{base}"),
        prints="ran by generated",
        builds=False,
    ),
    Case(
        name="git-requirements",
        kind="git",
        files={"train.py": TRAIN, "requirements.txt": WANDB},
        prints="ran by generated",
    ),
    Case(
        name="git-dockerfile-of-the-job",
        kind="git",
        files={"train.py": TRAIN, "Dockerfile": OWN % "git"},
        create=("--dockerfile", "Dockerfile"),
        prints="ran by git",
    ),
    Case(
        name="git-dockerfile-of-the-item",
        kind="git",
        files={"sub/train.py": TRAIN, "Dockerfile.other": OWN % "item"},
        entry_point="python sub/train.py",
        launch=("--dockerfile", "Dockerfile.other"),
        prints="ran by item",
    ),
    Case(
        name="git-over-ssh",
        kind="git",
        over="ssh",
        files={"train.py": TRAIN, "Dockerfile.wandb": OWN % "beside"},
        prints="ran by beside",
    ),
    Case(name="image-open", kind="image", prints="ran by image", builds=False),
    Case(
        name="image-login",
        kind="image",
        launch=("--entry-point", "python /app/train.py again"),
        prints="ran by image again",
        builds=False,
    ),
)
