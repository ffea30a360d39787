"""One document that asks for many items, as the wandb client words it for one."""


def look_up_items(count: int) -> str:
    """One query for `count` items; variables `e0 p0 q0 i0 e1 …`, answers `a0 a1 …`."""
    variables = ", ".join(
        f"$e{index}: String!, $p{index}: String!, $q{index}: String!, $i{index}: ID!"
        for index in range(count)
    )
    fields = "\n".join(
        f"  a{index}: project(entityName: $e{index}, name: $p{index}) {{ runQueue(name: $q{index}) "
        f"{{ runQueueItem(id: $i{index}) {{ state associatedRunId }} }} }}"
        for index in range(count)
    )
    return f"query LaunchItems({variables}) {{\n{fields}\n}}"
