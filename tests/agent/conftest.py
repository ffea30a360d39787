"""Plain tracebacks: the drawn ones of a developer's terminal take a second each."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> Iterator[None]:
    processors = [structlog.contextvars.merge_contextvars, structlog.processors.format_exc_info]
    structlog.configure(processors=[*processors, structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()
