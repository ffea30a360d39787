"""Resource configs: what a queue gives to each of its items, and the variables in it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, delete, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from launch_async.server.errors import ApiError
from launch_async.server.run_specs import ARGS_KEYS, check_resource, read_object
from launch_async.server.store.engine import insert
from launch_async.server.store.prepared import often
from launch_async.server.store.tables.queues import resource_configs, run_queues
from launch_async.server.template_variables import parse_variables, schema_warnings

CONFIG: Final = "DefaultResourceConfig"


class ConfigRow(msgspec.Struct, frozen=True):
    """A resource config; both documents are JSON text."""

    id: int
    resource: str
    config: str
    template_variables: str


class NewConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A resource config that was checked and can be stored."""

    resource: str
    config: dict[str, Any]
    variables: dict[str, Any]

    @property
    def warnings(self) -> list[str]:
        """What is legal but probably not meant."""
        return schema_warnings(self.variables, self.config)


CONFIG_COLUMNS: Final = (
    resource_configs.c.id,
    resource_configs.c.resource,
    resource_configs.c.config,
    resource_configs.c.template_variables,
)
"""What a ConfigRow is made of."""

CONFIG_BY_ID: Final = often(
    select(*CONFIG_COLUMNS).where(
        resource_configs.c.id == bindparam("number"),
        resource_configs.c.entity_id == bindparam("entity"),
    ),
    alone=True,
)


async def find_config(
    connection: AsyncConnection, entity_id: int, config_id: int
) -> ConfigRow | None:
    """Return a resource config of this entity."""
    named = {"number": config_id, "entity": entity_id}
    row = (await connection.execute(CONFIG_BY_ID, named)).one_or_none()
    return None if row is None else ConfigRow(*row)


def check_config(
    resource: str,
    config: str,
    template_variables: str | None,
    *,
    resource_types: Collection[str],
) -> NewConfig:
    """Check a resource config; the ApiError names what is wrong with it."""
    check_resource(resource, resource_types)
    document = read_object(config, "the resource config")
    args = document.setdefault("resource_args", {})
    known = ARGS_KEYS.get(resource, (resource,))
    if not isinstance(args, dict) or not set(args) <= set(known):
        raise ApiError(
            f"the config of a {resource} queue has the form "
            f'{{"resource_args": {{"{resource}": {{...}}}}}}'
        )
    for key, value in args.items():
        if not isinstance(value, dict):
            raise ApiError(f"resource_args.{key} of the config must be an object")
    variables = read_object(template_variables or "{}", "templateVariables")
    parse_variables(variables)
    return NewConfig(resource=resource, config=document, variables=variables)


async def create_config(
    connection: AsyncConnection, entity_id: int, new: NewConfig, *, now: datetime
) -> int:
    """Store a resource config and return its row id."""
    made = await connection.execute(
        insert(connection, resource_configs)
        .values(
            entity_id=entity_id,
            resource=new.resource,
            config=msgspec.json.encode(new.config).decode(),
            template_variables=msgspec.json.encode(new.variables).decode(),
            created_at=now,
        )
        .returning(resource_configs.c.id)
    )
    return int(made.scalar_one())


async def drop_unused(connection: AsyncConnection, config_ids: Sequence[int]) -> None:
    """Delete those of these configs that no queue has."""
    used = exists().where(run_queues.c.config_id == resource_configs.c.id)
    await connection.execute(
        delete(resource_configs).where(resource_configs.c.id.in_(config_ids), ~used)
    )
