"""Environments for code jobs: made once, shared, and made again when a crash left half of one."""

import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import anyio
import msgspec
import pytest

from launch_async.adapters.builders.environments import EnvironmentBuilder
from launch_async.adapters.builders.images import ReadyImages
from launch_async.domain.errors import ItemError, Reason, Stage, Unavailable
from launch_async.domain.ids import ItemId, QueueRef, RunId
from launch_async.domain.item import Item
from launch_async.domain.job import ArtifactSource, GitSource, ImageSource, Job, Source
from launch_async.domain.spec import Overrides, RunSpec
from launch_async.ports.build import BuildOrder
from launch_async.ports.runner import CodeWork, ImageWork

pytestmark = pytest.mark.anyio

CODE = ArtifactSource("QXJ0aWZhY3Q6MQ==")


class WrittenJobs:
    """A job store whose jobs are given as files."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = files
        self.fetches = 0
        self.broken = False

    async def job(self, ref: str) -> Job:
        return Job(source=CODE, ref=ref)

    async def fetch(self, source: ArtifactSource | GitSource, into: Path) -> None:
        assert list(into.iterdir()) == []
        self.fetches += 1
        for name, text in self.files.items():
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if self.broken:
                raise Unavailable("the network went away half-way")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, base_environment: Path) -> Path:
    """The state folder of an agent that has built before."""
    state = tmp_path / "state"
    shutil.copytree(base_environment, state / "envs", symlinks=True)
    return state


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A tiny package, ready to install without any index."""
    path = tmp_path / "tiny_thing-1.0-py3-none-any.whl"
    info = "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_thing.py", "WORDS = 'tiny words'\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(
            f"{info}/RECORD",
            f"tiny_thing.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
        )
    return path


def make_order(
    *,
    run_id: str = "run1",
    item_id: str = "item1",
    source: Source = CODE,
    entrypoint: tuple[str, ...] = ("python", "train.py"),
    runtime: str | None = None,
    working_dir: str | None = None,
) -> BuildOrder:
    spec = RunSpec(
        entity="team", project="project", job="j", overrides=Overrides(working_dir=working_dir)
    )
    item = Item(
        id=ItemId(item_id),
        queue=QueueRef("team", "model-registry", "queue"),
        run_id=RunId(run_id),
        spec=spec,
        popped_at=0.0,
    )
    return BuildOrder(item=item, job=Job(source=source, runtime=runtime), entrypoint=entrypoint)


async def build(builder: EnvironmentBuilder, order: BuildOrder) -> CodeWork:
    work = await builder.build(order)
    assert isinstance(work, CodeWork)
    return work


def made_environments(tmp_path: Path) -> list[Path]:
    marks = (tmp_path / "state" / "envs").glob("*/complete")
    return [mark.parent for mark in marks if not mark.parent.name.startswith("base-")]


def says(work: CodeWork, code: str) -> str:
    argv = [str(work.bin_directory / "python"), "-c", code]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


async def test_requirements_are_installed_and_the_code_is_the_runs_own(
    tmp_path: Path, wheel: Path
) -> None:
    jobs = WrittenJobs({"train.py": "print(1)", "requirements.txt": f"# ours\n{wheel}\n"})
    work = await build(EnvironmentBuilder(tmp_path / "state", jobs), make_order())
    assert work.directory == tmp_path / "state" / "runs" / "run1" / "code"
    assert (work.directory / "train.py").read_text() == "print(1)"
    assert work.entrypoint == ("python", "train.py")
    assert says(work, "import tiny_thing; print(tiny_thing.WORDS)") == "tiny words"


async def test_pyproject_dependencies_are_installed_when_there_is_no_requirements_txt(
    tmp_path: Path, wheel: Path
) -> None:
    text = f'[project]\nname = "x"\ndependencies = ["tiny-thing @ file://{wheel}"]\n'
    jobs = WrittenJobs({"pyproject.toml": text, "requirements.frozen.txt": "no-such-thing==9\n"})
    work = await build(EnvironmentBuilder(tmp_path / "state", jobs), make_order())
    assert says(work, "import tiny_thing; print(tiny_thing.WORDS)") == "tiny words"


async def test_a_frozen_list_is_installed_as_far_as_it_can_be(tmp_path: Path, wheel: Path) -> None:
    frozen = f"no-such-thing @ file://{tmp_path}/missing.whl\ntiny-thing @ file://{wheel}\n"
    jobs = WrittenJobs({"requirements.frozen.txt": frozen})
    work = await build(EnvironmentBuilder(tmp_path / "state", jobs), make_order())
    assert says(work, "import tiny_thing; print(tiny_thing.WORDS)") == "tiny words"
    assert "could not be installed: no-such-thing @ " in work.warnings[0], (
        "also of whoever finds it"
    )


async def test_runs_with_the_same_requirements_share_one_environment_made_once(
    tmp_path: Path,
) -> None:
    builder = EnvironmentBuilder(tmp_path / "state", WrittenJobs({"requirements.txt": "# none\n"}))
    works: list[CodeWork] = []

    async def one(number: int) -> None:
        order = make_order(run_id=f"run{number}", item_id=f"item{number}")
        works.append(await build(builder, order))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, number)
    assert len({work.directory for work in works}) == 20
    assert len({work.bin_directory for work in works}) == 1
    assert len(made_environments(tmp_path)) == 1


async def test_items_that_wait_for_one_environment_share_its_failure_and_later_ones_try_anew(
    tmp_path: Path,
) -> None:
    failing = "open('BUILDS', 'a').write('x')\nraise SystemExit('as planned')\n"
    builds = tmp_path / "builds"
    jobs = WrittenJobs(
        {"requirements.txt": "./slow\n", "slow/setup.py": failing.replace("BUILDS", str(builds))}
    )
    builder = EnvironmentBuilder(tmp_path / "state", jobs)
    said: list[str] = []

    async def one(number: int) -> None:
        with pytest.raises(ItemError) as failed:
            await builder.build(make_order(run_id=f"run{number}", item_id=f"item{number}"))
        assert (failed.value.reason, failed.value.stage) == (Reason.BUILD_FAILED, Stage.BUILD)
        said.append(str(failed.value))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, number)
    once = builds.read_text()
    assert len(said) == 20
    assert set(said) == {said[0]}
    later = make_order(run_id="later", item_id="later")
    later = msgspec.structs.replace(
        later, item=msgspec.structs.replace(later.item, popped_at=time.time())
    )
    with pytest.raises(ItemError, match="pip failed"):
        await builder.build(later)
    assert builds.read_text() == once * 2


async def test_an_environment_is_used_again_by_the_next_life_and_marked_as_used(
    tmp_path: Path,
) -> None:
    jobs = WrittenJobs({"requirements.txt": ""})
    first = await build(EnvironmentBuilder(tmp_path / "state", jobs), make_order())
    marked = first.bin_directory / "mark"
    marked.touch()
    os.utime(first.bin_directory.parent, (1.0, 1.0))
    second = await build(
        EnvironmentBuilder(tmp_path / "state", jobs), make_order(run_id="run2", item_id="item2")
    )
    assert second.bin_directory == first.bin_directory
    assert marked.exists()
    assert time.time() - first.bin_directory.parent.stat().st_mtime < 60


async def test_an_environment_without_its_mark_is_made_again(tmp_path: Path) -> None:
    builder = EnvironmentBuilder(tmp_path / "state", WrittenJobs({}))
    work = await build(builder, make_order())
    (work.bin_directory.parent / "complete").unlink()
    (work.bin_directory / "python").unlink()
    again = await build(builder, make_order(run_id="run2", item_id="item2"))
    assert again.bin_directory == work.bin_directory
    assert says(again, "print('works')") == "works"


async def test_the_same_order_again_keeps_the_copy_that_a_run_may_be_at_work_in(
    tmp_path: Path,
) -> None:
    jobs = WrittenJobs({"train.py": "print(1)"})
    builder = EnvironmentBuilder(tmp_path / "state", jobs)
    work = await build(builder, make_order())
    (work.directory / "result").write_text("of the run")
    assert await build(builder, make_order()) == work
    assert (work.directory / "result").exists()
    assert jobs.fetches == 1


async def test_a_new_item_for_the_same_run_gets_a_fresh_copy(tmp_path: Path) -> None:
    jobs = WrittenJobs({"train.py": "print(1)"})
    builder = EnvironmentBuilder(tmp_path / "state", jobs)
    work = await build(builder, make_order())
    (work.directory / "result").write_text("of the run")
    await build(builder, make_order(item_id="item2"))
    assert not (work.directory / "result").exists()
    assert (work.directory / "train.py").exists()


async def test_a_fetch_that_broke_off_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    jobs = WrittenJobs({"a.py": "1", "train.py": "2"})
    builder = EnvironmentBuilder(tmp_path / "state", jobs)
    jobs.broken = True
    with pytest.raises(Unavailable):
        await builder.build(make_order())
    jobs.broken, jobs.files = False, {"train.py": "2"}
    work = await build(builder, make_order())
    assert [path.name for path in work.directory.iterdir()] == ["train.py"]


async def test_a_failed_install_says_what_pip_said(tmp_path: Path) -> None:
    missing = tmp_path / "missing-1.0-py3-none-any.whl"
    jobs = WrittenJobs({"requirements.txt": f"{missing}\n"})
    with pytest.raises(ItemError, match=r"pip failed[\s\S]*missing-1\.0") as failed:
        await EnvironmentBuilder(tmp_path / "state", jobs).build(make_order())
    assert (failed.value.reason, failed.value.stage) == (Reason.BUILD_FAILED, Stage.BUILD)
    assert made_environments(tmp_path) == []


async def test_an_index_out_of_reach_is_called_so_and_its_password_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:pa55w0rd@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    jobs = WrittenJobs({"requirements.txt": "a-thing-that-nobody-has==1\n"})
    with pytest.raises(ItemError, match="the package index cannot be reached") as failed:
        await EnvironmentBuilder(tmp_path / "state", jobs).build(make_order())
    assert "pa55w0rd" not in str(failed.value)


async def test_a_cancelled_build_ends_pip_and_is_begun_anew(tmp_path: Path) -> None:
    jobs = WrittenJobs(
        {"requirements.txt": "./slow\n", "slow/setup.py": "import time; time.sleep(60)"}
    )
    builder = EnvironmentBuilder(tmp_path / "state", jobs)
    with anyio.move_on_after(1.5) as given_up:
        await builder.build(make_order())
    assert given_up.cancelled_caught
    here = str(tmp_path).encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if here in readable(path)]
    jobs.files = {}
    work = await build(builder, make_order(run_id="run2", item_id="item2"))
    assert says(work, "print('works')") == "works"


def readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_an_install_that_takes_too_long_fails_with_its_limit(tmp_path: Path) -> None:
    jobs = WrittenJobs(
        {"requirements.txt": "./slow\n", "slow/setup.py": "import time; time.sleep(60)"}
    )
    builder = EnvironmentBuilder(tmp_path / "state", jobs, install_timeout_seconds=1)
    with pytest.raises(ItemError, match=r"longer than 1 s"):
        await builder.build(make_order())


async def test_a_python_that_is_missing_is_replaced_by_the_agents_own(tmp_path: Path) -> None:
    builder = EnvironmentBuilder(tmp_path / "state", WrittenJobs({}))
    own = await build(builder, make_order())
    other = await build(builder, make_order(run_id="r2", item_id="i2", runtime="3.99"))
    assert other.bin_directory == own.bin_directory


async def test_a_working_directory_must_be_inside_of_the_code(tmp_path: Path) -> None:
    builder = EnvironmentBuilder(tmp_path / "state", WrittenJobs({"sub/train.py": ""}))
    assert (await build(builder, make_order(working_dir="sub"))).directory.name == "sub"
    with pytest.raises(ItemError, match="no folder of the job's code"):
        await builder.build(make_order(working_dir="../../.."))


async def test_a_run_id_cannot_lead_out_of_the_state_folder(tmp_path: Path) -> None:
    builder = EnvironmentBuilder(tmp_path / "state", WrittenJobs({}))
    work = await build(builder, make_order(run_id="../../../escaped"))
    assert work.directory.is_relative_to(tmp_path / "state" / "runs")


async def test_an_image_job_is_sent_to_a_container_queue(tmp_path: Path) -> None:
    builder = EnvironmentBuilder(tmp_path / "state", WrittenJobs({}))
    with pytest.raises(ItemError, match="use a local-container queue") as refused:
        await builder.build(make_order(source=ImageSource("busybox")))
    assert refused.value.reason is Reason.TARGET_UNSUPPORTED


async def test_ready_images_take_images_and_refuse_code() -> None:
    order = make_order(source=ImageSource("busybox"), entrypoint=("sh",))
    assert await ReadyImages().build(order) == ImageWork(image="busybox", entrypoint=("sh",))
    with pytest.raises(ItemError, match="use an image job"):
        await ReadyImages().build(make_order())


async def test_an_environment_has_a_pip_of_its_own(tmp_path: Path) -> None:
    work = await build(EnvironmentBuilder(tmp_path / "state", WrittenJobs({})), make_order())
    argv = [str(work.bin_directory / "pip"), "--version"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert str(work.bin_directory.parent) in said


async def test_discarding_an_item_leaves_another_items_copy_of_the_same_run(tmp_path: Path) -> None:
    builder = EnvironmentBuilder(tmp_path / "state", WrittenJobs({"train.py": "print(1)"}))
    first, second = make_order(item_id="one"), make_order(item_id="two")
    await build(builder, first)
    work = await build(builder, second)
    await builder.discard(first.item)
    assert (work.directory / "train.py").exists()
    await builder.discard(second.item)
    assert not list((tmp_path / "state" / "runs").iterdir())
