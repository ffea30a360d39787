"""Names for files, folders and remote things, made from text that others chose."""

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def plain_name(text: str) -> str:
    """`text` itself when it is a harmless name, else a stable one made from its hash.

    Letters, digits, `_`, `.`, `-`, first a letter or digit: no path separator, no `..`, and what
    Docker takes for a container's name.
    """
    if _PLAIN.fullmatch(text):
        return text
    return f"x-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
