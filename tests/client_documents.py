"""The GraphQL documents of a wandb client, read out of the package itself.

A name is the operation's, a dot, and where it stands: `core` is the Go program, `python` the
generated Python modules, anything else a module's name. Documents that a client puts together at
run time cannot be read; the shapes that 0.31 gives them are in `composed_documents/`.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from graphql import DocumentNode, GraphQLError, OperationDefinitionNode, parse

COMPOSED = Path(__file__).parent / "composed_documents"
PYTHON_START = re.compile(r"\s*(#[^\n]*\n\s*)*(query|mutation)\b")
CORE_START = re.compile(rb"(?:query|mutation) \w+ ?(?:\(\$[^)]*\) )?\{")
MAX_BYTES = 20_000


def client_document(name: str) -> str:
    """Return a document of the installed client; the test fails on a name that it does not have."""
    return client_documents()[name]


@cache
def client_documents() -> dict[str, str]:
    """Return every document of the installed client by name, those that it composes among them."""
    spec = importlib.util.find_spec("wandb")
    assert spec is not None
    assert spec.origin is not None
    composed = {path.stem: path.read_text() for path in sorted(COMPOSED.glob("*.graphql"))}
    return documents_of(Path(spec.origin).parent) | composed


@cache
def documents_of(package: Path) -> dict[str, str]:
    """Return a package's documents by name; a second one of a name and place ends in `2`."""
    found: dict[str, str] = {}
    for place, text in _all_texts(package):
        for operation in _operations(text):
            name = f"{operation}.{place}"
            while name in found and found[name] != text:
                name += "2"
            found[name] = text
    return found


def _all_texts(package: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(package.rglob("*.py")):
        if "vendor" not in path.parts:
            place = "python" if path.parent.name == "_generated" else path.stem
            yield from ((place, text) for text in _texts_of_python(path))
    yield from (("core", text) for text in _texts_of_core(package / "bin" / "wandb-core"))


def _texts_of_python(path: Path) -> Iterator[str]:
    source = path.read_text(encoding="utf-8")
    if "query" not in source and "mutation" not in source:
        return
    nodes = list(ast.walk(ast.parse(source)))
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if (
            isinstance(node, ast.Constant)
            and id(node) not in parts
            and isinstance(node.value, str)
            and PYTHON_START.match(node.value)
        ):
            yield node.value


def _texts_of_core(path: Path) -> Iterator[str]:
    """Yield what stands in the program's text: strings have no end there, braces have."""
    content = path.read_bytes()
    for start in CORE_START.finditer(content):
        text = content[start.start() : start.start() + MAX_BYTES]
        end = _end_of_document(text)
        if end is not None:
            yield text[:end].decode(errors="replace")


def _end_of_document(text: bytes) -> int | None:
    """Return where the operation and the fragments behind it end."""
    end, depth = None, 0
    for index, byte in enumerate(text):
        if byte == ord("{"):
            depth += 1
        elif byte == ord("}"):
            depth -= 1
            if depth == 0:
                end = index + 1
                if not text[end:].lstrip().startswith(b"fragment "):
                    return end
    return end


def _operations(text: str) -> list[str]:
    try:
        document: DocumentNode = parse(text)
    except GraphQLError:
        return []  # a template, or no GraphQL at all
    return [
        definition.name.value
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode) and definition.name is not None
    ]
