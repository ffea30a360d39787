"""The program that installs requirements within an image: real pip, an index on loopback."""

import ast
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from subprocess import STDOUT
from typing import NamedTuple

import pytest

from launch_async.domain.errors import ItemError
from launch_async.images import installer
from launch_async.images.dependencies import install_at_start, missing_packages

PROGRAM = Path(installer.__file__)
BROKEN = "raise SystemExit('cannot be built here')\n"


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder as an index of packages."""

    asked: list[str]


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Index(NamedTuple):
    folder: Path
    server: Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def add(self, name: str, version: str, *, under: str = "simple", needs: str = "") -> None:
        """A wheel with a module of the package's name."""
        folder = self.folder / under / name
        folder.mkdir(parents=True, exist_ok=True)
        module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
        path = folder / f"{module}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{module}.py", "")
            facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            if needs:
                facts += f"Requires-Dist: {needs}\n"
            wheel.writestr(f"{info}/METADATA", facts)
            wheel.writestr(
                f"{info}/WHEEL",
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{info}/RECORD", "")

    def add_broken(self, name: str, version: str) -> None:
        """A source package whose set-up fails."""
        folder = self.folder / "simple" / name
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / f"{name}-{version}.zip", "w") as source:
            source.writestr(f"{name}-{version}/setup.py", BROKEN)
            source.writestr(f"{name}-{version}/PKG-INFO", f"Name: {name}\nVersion: {version}\n")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "index"
    folder.mkdir()
    handler = partial(Handler, directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as server:
        server.asked = []
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield Index(folder, server)
        server.shutdown()
        serving.join()


@pytest.fixture(scope="session")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pip to import: unpacking it takes seconds."""
    folder = tmp_path_factory.mktemp("pip") / "env"
    venv.create(folder, with_pip=True, symlinks=True)
    (found,) = folder.glob("lib/python*/site-packages")
    return found


class Done(NamedTuple):
    code: int
    said: str
    environment: Path

    @property
    def installed(self) -> dict[str, str]:
        found = self.environment.glob("lib/python*/site-packages/*.dist-info")
        pairs = [path.name.removesuffix(".dist-info").rpartition("-") for path in found]
        return {name: version for name, _, version in pairs}


class Install:
    """Runs the installer with an environment of its own."""

    def __init__(self, folder: Path, pip: Path, index: Index) -> None:
        self.folder, self.index = folder, index
        self.environment = folder / "env"
        venv.create(self.environment, symlinks=True)
        self.program = shutil.copy(PROGRAM, folder)
        self.variables = {
            "PIP_INDEX_URL": f"{index.url}/simple",
            "PYTHONPATH": str(pip),
            "PATH": "/nowhere",
        }

    def __call__(self, listed: str, *words: str) -> Done:
        path = self.folder / "list.txt"
        path.write_text(listed)
        python = self.environment / "bin" / "python"
        return self.run(
            [python, self.program, "--pytorch", f"{self.index.url}/whl", *words, path],
            self.folder,
        )

    def run(self, argv: Sequence[str | Path], folder: Path, stderr: int | Path = STDOUT) -> Done:
        """Any program with these variables; `stderr` may be a file of its own."""
        with nullcontext(stderr) if isinstance(stderr, int) else stderr.open("w") as errors:
            done = subprocess.run(
                argv,
                env={"HOME": str(self.folder), "PIP_RETRIES": "1", **self.variables},
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                timeout=120,
                check=False,
                cwd=folder,
            )
        return Done(done.returncode, done.stdout, self.environment)


@pytest.fixture
def install(tmp_path: Path, pip: Path, index: Index) -> Install:
    return Install(tmp_path, pip, index)


def test_a_list_is_installed_whole(install: Install, index: Index):
    index.add("one", "1.0")
    index.add("two", "2.0")
    done = install("one\ntwo==2.0\n")
    assert (done.code, done.installed) == (0, {"one": "1.0", "two": "2.0"})


def test_a_list_that_cannot_be_installed_whole_fails(install: Install, index: Index):
    index.add("one", "1.0")
    done = install("one\nno-such-thing==1\n")
    assert done.code == 1
    assert done.said.endswith("launch-async: the requirements could not be installed\n")
    assert missing_packages(done.said) == ()


def test_a_frozen_list_is_installed_as_far_as_it_can_be(install: Install, index: Index):
    for name in ("one", "two", "three"):
        index.add(name, "1.0")
    index.add_broken("unbuildable", "1.0")
    done = install(
        "one==1.0\nno-such-thing==1.0\ntwo==1.0\nunbuildable==1.0\nthree==9.9\n"
        "-e ./mine\nlocal @ file:///nowhere/local\nnot a requirement\n",
        "--frozen",
    )
    assert done.code == 0
    assert done.installed == {"one": "1.0", "two": "1.0"}
    assert set(missing_packages(done.said)) == {
        *("no-such-thing==1.0", "unbuildable==1.0", "three==9.9"),
        *("a URL or path", "local", "not"),
    }


def test_what_a_frozen_list_leaves_out_is_not_installed_for_it(install: Install, index: Index):
    index.add("one", "1.0", needs="two")
    index.add("two", "1.0")
    assert install("one==1.0\n", "--frozen").installed == {"one": "1.0"}
    assert install("one==1.0\n").installed == {"one": "1.0", "two": "1.0"}


def test_wheels_for_one_kind_of_machine_come_from_pytorchs_index(install: Install, index: Index):
    index.add("numpy", "1.0")
    index.add("torch", "2.1.0+cu118", under="whl/cu118")
    index.add("torchvision", "0.16.0+cpu", under="whl/cpu")
    done = install("torch==2.1.0+cu118\nnumpy==1.0\ntorchvision==0.16.0+cpu\n", "--frozen")
    assert done.code == 0, done.said
    assert done.installed == {
        "torch": "2.1.0+cu118",
        "numpy": "1.0",
        "torchvision": "0.16.0+cpu",
    }
    asked = {path for path in index.server.asked if path.startswith("/whl")}
    assert not any("numpy" in path for path in asked)  # nothing else is looked for there


def test_a_wandb_that_cannot_be_had_is_replaced_by_the_newest(install: Install, index: Index):
    index.add("wandb", "0.30.0")
    index.add("wandb", "0.31.0")
    done = install("wandb==0.32.0.dev1\n", "--frozen")
    assert done.code == 0
    assert done.installed == {"wandb": "0.31.0"}
    assert missing_packages(done.said) == ("wandb==0.32.0.dev1",)


def test_a_frozen_list_of_which_nothing_can_be_had_fails(install: Install, index: Index):
    (index.folder / "simple").mkdir()
    done = install("one==1.0\ntwo==1.0\n", "--frozen")
    assert done.code == 1
    assert "none of the listed packages" in done.said


def test_an_index_that_is_away_is_no_missing_package(install: Install, index: Index):
    install.variables["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"
    done = install("one==1.0\ntwo==1.0\n", "--frozen")
    assert done.code == 1
    assert missing_packages(done.said) == ()
    assert "the package index could not be reached" in done.said


def test_pips_own_version_is_installed_last(install: Install, index: Index):
    index.add("one", "1.0")
    index.add("two", "1.0")
    done = install("pip==0.0.1\none==1.0\ntwo==1.0\n", "--frozen")
    assert done.installed == {"one": "1.0", "two": "1.0"}
    assert missing_packages(done.said) == ("pip==0.0.1",)
    order = [line for line in done.said.splitlines() if re.match(r"Collecting|ERROR: No", line)]
    assert "pip" in order[-1]


def test_compilers_are_fetched_once_and_only_when_a_package_needs_them(
    install: Install, index: Index
):
    tools = install.folder / "tools"
    tools.mkdir()
    apt = tools / "apt-get"
    apt.write_text('#!/bin/sh\necho "$@" >> "$0.asked"\n')
    apt.chmod(0o755)
    install.variables["PATH"] = f"{tools}:{os.environ['PATH']}"
    index.add("one", "1.0")
    assert install("one==1.0\n", "--frozen").code == 0
    assert not apt.with_name("apt-get.asked").exists()
    index.add_broken("unbuildable", "1.0")
    done = install("one==1.0\nunbuildable==1.0\n", "--frozen")
    assert done.code == 0
    asked = apt.with_name("apt-get.asked").read_text().splitlines()
    assert [line.split()[1] for line in asked] == ["update", "install"]
    assert "build-essential" in asked[1]


def test_the_cache_is_where_it_is_wanted_else_nothing_stays(install: Install):
    told = install.folder / "told"
    told.mkdir()
    # Real pip keeps nothing of what comes over plain HTTP.
    (told / "pip.py").write_text("import os\nprint('cache:', os.environ['PIP_CACHE_DIR'])\n")
    install.variables["PYTHONPATH"] = str(told)
    assert "cache: /some/where\n" in install("one\n", "--cache", "/some/where").said
    found = re.search("cache: (.*)", install("one\n").said)
    assert found is not None
    assert not Path(found[1]).exists()


def test_it_needs_the_standard_library_alone_and_no_new_syntax():
    tree = ast.parse(PROGRAM.read_text(), feature_version=(3, 8))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def starts(install: Install, files: Mapping[str, str], *program: str) -> tuple[Done, str]:
    """The program in a folder with these files, after what they need; what was said of that."""
    code, said = install.folder / "code", install.folder / "said"
    code.mkdir(exist_ok=True)
    for name, text in files.items():
        (code / name).write_text(text)
    install.variables["PATH"] = f"{install.environment / 'bin'}:{os.environ['PATH']}"
    words = ["env", *install_at_start(code), *program]  # `env` finds it in this PATH
    return install.run(words, code, said), said.read_text()


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "-r more.txt\n", "more.txt": "one\ntwo\n"},
        {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["one==1.0", "two"]\n'},
        {"requirements.frozen.txt": "one==1.0\nno-such-thing==1\ntwo==2.0\n"},
    ],
    ids=lambda files: next(iter(files)),
)
def test_what_code_needs_is_installed_and_then_its_program_runs(
    files: Mapping[str, str], install: Install, index: Index
):
    index.add("one", "1.0")
    index.add("two", "2.0")
    modules = dict.fromkeys(("argparse.py", "logging.py"), "raise SystemExit(7)\n")
    program = ("python", "-I", "-c", "import one, two, sys; print(sys.argv[1:]); sys.exit(3)")
    done, said = starts(install, files | modules, *program, "--then", "a b")
    assert (done.code, done.said) == (3, "['--then', 'a b']\n"), said
    assert done.installed == {"one": "1.0", "two": "2.0"}
    lacks = ("no-such-thing==1",) if "requirements.frozen.txt" in files else ()
    assert missing_packages(said) == lacks


def test_a_program_does_not_run_without_what_it_needs(install: Install, index: Index):
    index.add("one", "1.0")
    files = {"requirements.txt": "one\nno-such-thing\n"}
    done, said = starts(install, files, "python", "-c", "print('ran')")
    assert (done.code, done.said) == (1, "")
    assert said.endswith("launch-async: the requirements could not be installed\n")


def test_a_program_that_is_not_there_is_named(install: Install, index: Index):
    index.add("one", "1.0")
    done, said = starts(install, {"requirements.txt": "one\n"}, "no-such-program")
    assert done.code == 1
    assert said.endswith(
        "launch-async: no-such-program cannot be started: [Errno 2] No such file or directory\n"
    )


def test_code_that_needs_nothing_is_started_at_once(tmp_path: Path):
    assert install_at_start(tmp_path) == ()


def test_a_list_that_is_too_long_for_a_start_is_refused(tmp_path: Path):
    (tmp_path / "requirements.frozen.txt").write_text(
        "".join(f"p{n}==1.0\n" for n in range(30_000))
    )
    with pytest.raises(ItemError, match="too long"):
        install_at_start(tmp_path)


def test_no_password_of_a_url_is_said(install: Install, index: Index):
    index.add("one", "1.0")
    url = index.url.replace("//", "//user:swordfish@")
    done = install(f"one==1.0\n{url}/no.whl\nnamed @ {url}/no.whl\n", "--frozen")
    assert done.code == 0
    assert set(missing_packages(done.said)) == {"a URL or path", "named"}
    assert "swordfish" not in done.said
