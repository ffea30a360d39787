"""What `up --run` shows of a run."""

import io

from launch_async.cli.progress import plain_console, summary
from launch_async.sdk.client import ItemStatus, RunStatus
from launch_async.sdk.follow import Progress


def test_names_and_messages_are_shown_as_they_are():
    shown = io.StringIO()
    name = "[/b] :smile: [red]x"
    run = RunStatus(run_id="r", name=name, state="failed", config={"[/k]": 1}, summary={}, steps=0)
    end = Progress(item=ItemStatus(state="FAILED", message="[/m] failed"), run=run)
    assert not summary(end, url="http://h", console=plain_console(shown), seconds=1.0)
    for text in (name, "[/m] failed", "[/k]=1"):
        assert text in shown.getvalue()
