"""How an agent looks to people: the same for a look and for the live display."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launch_async.admin.health import silence
from launch_async.ports.status import AgentView, ItemView, LimitView, QueueView

STATES = {"polling": "bold green", "starting": "bold yellow", "stopping": "bold yellow"}
FEW_QUEUES = 8


def look(view: AgentView, *, width: int | None, items: int, queues: int | None = None) -> Group:
    """The agent in `width` columns (None: as many as it takes), so many queues and items of it."""
    return Group(*_parts(view, width=width, items=items, queues=queues))


def lines_beside_items(view: AgentView, *, queues: int) -> int:
    """How many lines a look takes beside the items themselves."""
    shown = min(len(view.queues), queues)
    rest = len(view.queues) > shown
    return 3 + 1 + 1 + shown + rest + 1 + 1 + 1


def ago(seconds: float | None) -> str:
    """A duration in at most six characters."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _parts(
    view: AgentView, *, width: int | None, items: int, queues: int | None
) -> Iterator[RenderableType]:
    yield _head(view)
    yield _line("limits", "  ".join(_limit(limit) for limit in view.limits))
    ended = ", ".join(f"{count} {reason}" for reason, count in sorted(view.ended.items()))
    yield _line("ended", ended or "none yet")
    yield Text()
    yield _queues(view, view.queues[:queues], width)
    if queues is not None and len(view.queues) > queues:
        yield Text(f"… and {len(view.queues) - queues} more queues", style="dim")
    yield Text()
    open_items = sum(sum(phases.values()) for phases in view.phases.values())
    if not open_items:
        yield Text("no open items", style="dim")
        return
    shown = view.items[:items]
    if shown:
        yield _items(shown, width)
    if open_items > len(shown):
        yield Text(f"… and {open_items - len(shown)} more items", style="dim")


def _head(view: AgentView) -> Text:
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(view.name or "not registered yet", style="bold")
    head.append(f"  {view.state}", style=STATES.get(view.state, ""))
    if view.state == "stopping":
        left = view.lets_go_in_seconds
        head.append("  waits for its items" if left is None else f"  lets go in {ago(left)}")
    head.append(f"  launched {view.launched}  adopted {view.adopted}")
    heard = view.seconds_since_beat
    head.append("  not heard yet" if heard is None else f"  heard {ago(heard)} ago", style="dim")
    if view.unfit:
        head.append(f"  {view.unfit}", style="bold red")
    return head


def _line(name: str, text: str) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{name:<8}", style="dim")
    line.append(text)
    return line


def _limit(limit: LimitView) -> str:
    return f"{limit.name} {limit.used}/{_most(limit.limit)}"


def _queues(view: AgentView, queues: tuple[QueueView, ...], width: int | None) -> Table:
    table = _table(width)
    table.add_column("QUEUE", no_wrap=True, overflow="ellipsis")
    table.add_column("ITEMS", justify="right", no_wrap=True)
    table.add_column("MAX", justify="right", no_wrap=True)
    table.add_column("WEIGHT", justify="right", no_wrap=True)
    table.add_column("LOOKED", justify="right", no_wrap=True)
    table.add_column("STATE", no_wrap=True, overflow="ellipsis", ratio=None if width is None else 1)
    for queue in queues:
        table.add_row(
            Text(queue.name),
            str(queue.items),
            _most(queue.max_jobs),
            f"{queue.weight:g}",
            ago(queue.seconds_since_poll),
            _queue_state(queue, view.poll_seconds),
        )
    return table


def _queue_state(queue: QueueView, poll_seconds: float) -> Text:
    if queue.paused:
        by = "by hand" if queue.paused_by_hand else "by its setting"
        return Text(f"paused {by}", style="yellow")
    if queue.fault:
        return Text(f"not answering: {queue.fault}", style="red")
    if queue.missing:
        return Text("full: " + "; ".join(queue.missing), style="yellow")
    silent = silence(queue, poll_seconds=poll_seconds)
    if silent:
        return Text(silent, style="red" if queue.polls else "yellow")
    return Text(
        f"polled every {ago(queue.interval_seconds)}" if queue.interval_seconds else "polled"
    )


def _items(items: tuple[ItemView, ...], width: int | None) -> Table:
    table = _table(width)
    table.add_column(
        "ITEM", no_wrap=True, min_width=max((len(item.id) for item in items), default=4)
    )
    table.add_column("QUEUE", no_wrap=True, overflow="ellipsis", max_width=20)
    table.add_column("RUN", no_wrap=True, overflow="ellipsis", min_width=8, max_width=20)
    table.add_column("PHASE", no_wrap=True, min_width=9)
    table.add_column("FOR", justify="right", no_wrap=True, min_width=6)
    table.add_column(
        "DETAIL", no_wrap=True, overflow="ellipsis", ratio=None if width is None else 1
    )
    for item in items:
        run = item.run.rsplit("/", 1)[-1]
        detail = "" if item.detail == item.phase else item.detail
        since = ago(item.seconds_in_phase)
        table.add_row(*map(Text, (item.id, item.queue, run, item.phase, since, detail)))
    return table


def _table(width: int | None) -> Table:
    return Table(box=None, pad_edge=False, width=width, header_style="dim", show_edge=False)


def _most(limit: int) -> str:
    return "∞" if limit == -1 else str(limit)
