"""Several sources of logins as one."""

from collections.abc import Sequence

from launch_async.domain.image import ImageRef
from launch_async.ports.images import RegistryLogin, RegistryLogins


class LoginChain:
    """The first source that knows a login has it; later ones are not asked."""

    def __init__(self, sources: Sequence[RegistryLogins]) -> None:
        self._sources = tuple(sources)

    async def login(self, image: ImageRef) -> RegistryLogin | None:
        """As the port says."""
        for source in self._sources:
            found = await source.login(image)
            if found is not None:
                return found
        return None
