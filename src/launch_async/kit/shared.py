"""One call for all who ask at the same time."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Shared(Generic[T]):
    """Answers many askers with few calls; nobody gets an answer that is older than the question.

    However many ask at once, at most two calls follow: the one that is under way, which may have
    looked too early for those who came later, and one for all of these.
    """

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._begun = 0
        self._answered = 0
        self._answer: T | Exception | None = None

    async def get(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of a call that began after this one; its error is shared as well."""
        begun_before = self._begun
        async with self._lock:
            if self._answered <= begun_before:
                self._begun += 1
                try:
                    self._answer = await ask()
                except Exception as error:  # noqa: BLE001 - raised below, for all who wait
                    self._answer = error
                self._answered = self._begun
            answer = self._answer
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]
