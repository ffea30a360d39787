"""A value that must not be shown: masked wherever it is printed, logged or formatted."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Secret(Generic[T]):
    """Holds a value that only `reveal()` gives out; `str`, `repr` and `format` show stars.

    It is carried from the edge where it was read to the header or environment where it is used.
    msgspec refuses to encode it, so it cannot slip into a file by accident.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """The value itself; call it only where the value leaves for its one destination."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other.reveal())

    def __hash__(self) -> int:
        return hash(self._value)
