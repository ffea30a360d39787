"""Who may do what: a person's roles, a run's key, and the rules that both are held against.

    VIEWER  reads what an entity owns
    MEMBER  also writes runs and artifacts, pushes and cancels items, and runs agents
    ADMIN   also makes, changes, pauses and deletes queues, and reads the audit trail

A run's key is a VIEWER of what its run needs, and writes that one run.
"""

from collections.abc import Mapping
from enum import IntEnum

import msgspec

from launch_async.server.errors import ApiError


class Role(IntEnum):
    """What a member may do in an entity; each role may do what those before it may."""

    VIEWER = 1
    MEMBER = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """The role as people write it, and as it is stored."""
        return self.name.lower()


ROLES: Mapping[str, Role] = {role.word: role for role in Role}


class RunScope(msgspec.Struct, frozen=True, kw_only=True):
    """The one run that a run's key may write."""

    item_id: int
    entity: str
    project_folded: str
    run_name: str | None
    """None as long as the item is not acked: then there is no run to write."""

    ended: bool = False
    """The key died with its run, not long ago: it may tell that end again, and nothing else."""


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is behind a request: a person, a service account, or a run of theirs."""

    user_id: int
    username: str
    email: str | None
    name: str
    admin: bool
    roles: Mapping[str, Role]
    """Role by the name of the entity; the personal entity first."""

    service: bool = False
    """A service account: may name the person for whom it works."""

    run: RunScope | None = None
    """Set for a run's key."""

    @property
    def entities(self) -> tuple[str, ...]:
        """Names of the entities whose things this viewer may read, the personal one first."""
        return tuple(self.roles)

    @property
    def entity(self) -> str:
        """The entity taken when a client names none."""
        return self.username if self.run is None else self.run.entity

    def may(self, entity: str, need: Role) -> bool:
        """Tell whether the viewer's role in an entity reaches as far as `need`."""
        role = self.roles.get(entity)
        return role is not None and role >= need

    def may_write_run(self, entity: str, project: str, run_name: str | None) -> bool:
        """Tell whether this viewer may write a run, as a member or as the run itself."""
        scope = self.run
        if scope is None:
            return self.may(entity, Role.MEMBER)
        return (
            run_name is not None
            and scope.run_name == run_name
            and scope.entity == entity
            and scope.entity in self.roles
            and scope.project_folded == project.casefold()
        )


def require_role(viewer: Viewer, entity: str, need: Role) -> None:
    """Raise a 403 unless the viewer has this role in an entity.

    A stranger is told the same of an entity that there is and of one that there is not.
    """
    if viewer.may(entity, need):
        return
    if entity not in viewer.roles:
        raise ApiError(
            f"there is no entity {entity!r}, or you are not its member; ask its admin to add you",
            status=403,
        )
    if viewer.run is not None:
        raise ApiError(f"a run's key may not do this in {entity!r}; use your own", status=403)
    role = viewer.roles[entity]
    raise ApiError(
        f"this needs the role {need.word} in {entity!r}, and yours is {role.word}; "
        "ask an admin of it",
        status=403,
    )


def require_run_write(viewer: Viewer, entity: str, project: str, run_name: str | None) -> None:
    """Raise a 403 unless the viewer may write this run, as a member or as the run itself."""
    if viewer.may_write_run(entity, project, run_name):
        return
    if viewer.run is not None:
        own = viewer.run.run_name or "none yet, as no agent acked its item"
        raise ApiError(f"this key writes one run only: {own}", status=403)
    require_role(viewer, entity, Role.MEMBER)
