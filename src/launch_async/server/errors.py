"""Errors that a client is meant to read: raised anywhere below a request, answered at its edge."""


class ApiError(Exception):
    """A refusal with its HTTP status; `message` is shown to the user as it stands."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class Busy(ApiError):
    """The database cannot serve this at the moment; clients try again by themselves."""

    def __init__(self, message: str, *, undone: bool) -> None:
        super().__init__(message, status=503)
        self.undone = undone
        """Whether it is certain that nothing was kept."""
