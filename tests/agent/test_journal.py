"""The journal on a real SQLite file: what is written comes back, to this user and this agent."""

import shutil
import stat
from pathlib import Path

import msgspec
import pytest
from fakes import an_item

from launch_async.adapters.journals.identity import held_identity
from launch_async.adapters.journals.sqlite import SqliteJournal
from launch_async.domain.errors import AgentUnfit, Reason
from launch_async.domain.ids import ItemId, RunId
from launch_async.domain.outcome import Outcome
from launch_async.domain.phase import Phase
from launch_async.domain.run import RunHandle
from launch_async.domain.secret import Secret
from launch_async.domain.spec import Overrides
from launch_async.kit.clock import Moment
from launch_async.ports.journal import Entry, Event

pytestmark = pytest.mark.anyio


def an_entry() -> Entry:
    item = an_item(
        api_key=Secret("s" * 40),
        overrides=Overrides(args=("a",), run_config={"lr": 0.5}),
        resource_args={"env": ["A=1"]},
    )
    item = msgspec.structs.replace(item, lease="f" * 32)
    handle = RunHandle(backend="fake", run_id=RunId("r"), item_id=ItemId("q-1"), data={"pid": 1})
    outcome = Outcome(failed=True, message="m", reason=Reason.KILLED, log_tail=("x",))
    return Entry(
        item=item,
        phase=Phase.REPORTING,
        handle=handle,
        outcome=outcome,
        launched=Moment(1.5, "boot", 2.5),
        events=(Event(1.5, "running"),),
    )


async def test_an_entry_survives_the_agent(tmp_path: Path):
    async with SqliteJournal.open(tmp_path) as journal:
        await journal.write(msgspec.structs.replace(an_entry(), phase=Phase.RUNNING))
        await journal.write(an_entry())
    async with SqliteJournal.open(tmp_path) as journal:
        assert await journal.entries() == [an_entry()]
        await journal.forget(ItemId("q-1"))
        assert await journal.entries() == []


async def test_entries_come_back_oldest_first(tmp_path: Path):
    async with SqliteJournal.open(tmp_path) as journal:
        for number in (3, 1, 2):
            await journal.write(Entry(item=an_item(number), phase=Phase.CLAIMING))
        await journal.write(Entry(item=an_item(3), phase=Phase.RUNNING))
        assert [entry.item.id for entry in await journal.entries()] == ["q-3", "q-1", "q-2"]


async def test_a_second_agent_with_the_same_folder_is_refused(tmp_path: Path):
    async with SqliteJournal.open(tmp_path):
        with pytest.raises(AgentUnfit, match="another agent uses the state folder"):
            async with SqliteJournal.open(tmp_path):
                pass


def test_a_copy_of_a_state_folder_is_refused_while_the_first_is_in_use(tmp_path: Path):
    first, copy = tmp_path / "first", tmp_path / "copy"
    first.mkdir()
    with held_identity(first) as identity:
        shutil.copytree(first, copy)
        with pytest.raises(AgentUnfit, match=r"copied. Delete identity"), held_identity(copy):
            pass
    with held_identity(copy) as again:  # one after the other is fine: the folder was moved
        assert again == identity


def test_an_identity_stays_and_an_empty_file_is_no_identity(tmp_path: Path):
    with held_identity(tmp_path) as first:
        pass
    with held_identity(tmp_path) as second:
        assert second == first
    (tmp_path / "identity").write_text("")
    with pytest.raises(AgentUnfit, match="is empty"), held_identity(tmp_path):
        pass


async def test_the_file_is_for_its_owner_only(tmp_path: Path):
    async with SqliteJournal.open(tmp_path / "state"):
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()]
    assert modes
    assert all(mode & 0o077 == 0 for mode in modes)


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\1" * 4000])
async def test_a_broken_file_is_one_line_with_a_remedy(content: bytes, tmp_path: Path):
    (tmp_path / "journal.sqlite").write_bytes(content)
    with pytest.raises(AgentUnfit, match=r"journal\.sqlite cannot be used .*move the file away"):
        async with SqliteJournal.open(tmp_path):
            pass


async def test_a_newer_file_is_refused(tmp_path: Path):
    async with SqliteJournal.open(tmp_path) as journal:
        await journal._execute("PRAGMA user_version = 99", ())
    with pytest.raises(AgentUnfit, match="newer launch-async"):
        async with SqliteJournal.open(tmp_path):
            pass


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentUnfit, match=r"agent\.state_dir"):
        async with SqliteJournal.open(tmp_path / "file" / "state"):
            pass


async def test_what_breaks_while_the_journal_is_open_is_not_called_its_fault(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        async with SqliteJournal.open(tmp_path):
            raise FileNotFoundError("elsewhere")


async def test_a_full_disk_makes_the_agent_unfit(tmp_path: Path):
    async with SqliteJournal.open(tmp_path) as journal:
        await journal.write(an_entry())
        # What SQLite says of a disk without room, it says of a file that may not grow as well.
        await journal._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(AgentUnfit, match="full"):
            await fill(journal)
    async with SqliteJournal.open(tmp_path) as journal:
        assert (await journal.entries())[0] == an_entry()


async def fill(journal: SqliteJournal) -> None:
    for number in range(100, 200):
        await journal.write(Entry(item=an_item(number), phase=Phase.CLAIMING))


async def test_a_torn_file_makes_the_agent_unfit(tmp_path: Path):
    (tmp_path / "journal.sqlite").write_bytes(b"SQLite format 3\0" + b"torn" * 100)
    with pytest.raises(AgentUnfit, match=r"journal\.sqlite cannot be used"):
        async with SqliteJournal.open(tmp_path):
            pass


async def test_a_runs_key_leaves_the_files_with_its_item(tmp_path: Path):
    def holders() -> list[str]:
        return [path.name for path in tmp_path.iterdir() if b"s" * 40 in path.read_bytes()]

    async with SqliteJournal.open(tmp_path) as journal:
        await journal.write(msgspec.structs.replace(an_entry(), phase=Phase.RUNNING))
        await journal.write(an_entry())
        assert holders()
        await journal.forget(ItemId("q-1"))
        assert not holders()
