"""Image references, in the grammar of the OCI distribution specification and Docker's short names.

```
[host[:port]/]repository[:tag][@sha256:digest]      python -> docker.io/library/python:latest
```
"""

import re
from typing import Self

import msgspec

DOCKER_HUB = "docker.io"
MAX_TAG = 128
MADE_LABEL = "launch-async.image"
"""On every image that was made by this package, with its tag: such may be cleaned up."""

_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


class ImageRef(msgspec.Struct, frozen=True, kw_only=True):
    """One image in one repository; whole, with the names that Docker leaves out."""

    host: str
    """Registry as HOST or HOST:PORT; `docker.io` for Docker Hub."""
    repository: str
    tag: str | None = None
    digest: str | None = None
    """`sha256:` and 64 hex digits; decides where a tag is there too."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, whose text names the fault, when this is no image reference."""
        first = text.partition("/")[0]
        named = "/" in text and ("." in first or ":" in first or first == "localhost")
        found = _REFERENCE.fullmatch(text if named else f"{DOCKER_HUB}/{text}")
        if found is None or found["host"] is None:
            msg = (
                f"{text!r} is no image reference; write [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST],"
                " the name in lower case"
            )
            raise ValueError(msg)
        repository = found["repository"]
        if found["host"] == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        tag = found["tag"] or (None if found["digest"] else "latest")
        return cls(host=found["host"], repository=repository, tag=tag, digest=found["digest"])

    def __str__(self) -> str:
        """The full reference."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"

    @property
    def version(self) -> str:
        """What its registry knows it by: the digest, else the tag."""
        return self.digest or self.tag or "latest"
