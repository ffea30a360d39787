"""Kinds of values on the command line that click's own take too lightly."""

import math
from pathlib import Path
from typing import Any

import click


class Seconds(click.FloatRange):
    """A range of seconds; `nan`, which is in no range, is refused as well."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """As `FloatRange.convert`."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class Folder(click.Path):
    """A folder, to be made or there already; none is not the working directory."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `Path.convert`."""
        if value == "":
            self.fail("it is empty; give a folder", param, ctx)
        return super().convert(value, param, ctx)
