"""Things that are said once in a life."""


class Once:
    """Remembers what was said; meant for a handful of fixed subjects."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def first(self, subject: str) -> bool:
        """True the first time."""
        if subject in self._said:
            return False
        self._said.add(subject)
        return True
