"""Errors that a client is meant to read: raised anywhere below a request, answered at its edge."""


class ApiError(Exception):
    """A refusal with its HTTP status; `message` is shown to the user as it stands."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
