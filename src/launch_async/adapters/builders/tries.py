"""How often a push is tried that its registry did not take."""

import random

import anyio

from launch_async.domain.errors import LaunchError, Unavailable

_PAUSES_SECONDS = (0.5, 1.0, 2.0)
_LONG_SECONDS = 15.0


class PushTries:
    """The tries of one push; engines and BuildKit try much by themselves, for up to a minute.

    One that lasted long has been tried enough: whoever ordered it may order it again.
    """

    def __init__(self) -> None:
        self._began = anyio.current_time()
        self._pauses = iter(_PAUSES_SECONDS)

    async def after(self, error: LaunchError, *, renewed: bool) -> None:
        """Return when it should be tried again; `renewed`: there is another login now.

        Raises:
            LaunchError: the error, when it should not.
        """
        pause = next(self._pauses, None)
        if pause is None or not (renewed or isinstance(error, Unavailable)):
            raise error
        if renewed:
            return
        if anyio.current_time() - self._began > _LONG_SECONDS:
            raise error
        await anyio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
