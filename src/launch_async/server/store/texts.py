"""Text as both databases can hold it."""

from typing import Any


def storable(text: str) -> str:
    """Return text as both databases can hold it: without NUL and without halves of surrogates.

    A refusal would be fatal to the run whose console brought them.
    """
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def storable_parameters(parameters: Any) -> Any:
    """Return a statement's parameters with all texts `storable`."""
    match parameters:
        case str():
            return storable(parameters)
        case tuple():
            return tuple(storable_parameters(each) for each in parameters)
        case list():
            return [storable_parameters(each) for each in parameters]
        case dict():
            return {name: storable_parameters(each) for name, each in parameters.items()}
        case _:
            return parameters
