"""Logins that a test knows, and what it must never see of them."""

from launch_async.domain.image import ImageRef
from launch_async.domain.secret import Secret
from launch_async.ports.images import RegistryLogin

PLANTED = "planted-pass-3f9c"
"""A password that must not be found anywhere."""


class Logins:
    """Gives one login, or none, and counts who asked."""

    def __init__(self, username: str | None = None, password: str = PLANTED) -> None:
        self.username = username
        self.password = password
        self.asked: list[str] = []

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        self.asked.append(image.name)
        if self.username is None:
            return None
        return RegistryLogin(username=self.username, password=Secret(self.password))


def everything_said(error: BaseException) -> str:
    """Each text and repr of an error, of what caused it and of what it came in the midst of."""
    seen: list[BaseException] = []
    open_ends = [error]
    while open_ends:
        one = open_ends.pop()
        if one not in seen:
            seen.append(one)
            open_ends += [part for part in (one.__cause__, one.__context__) if part is not None]
    return "\n".join(f"{one} {one!r} {one.args!r} {vars(one)!r}" for one in seen)
