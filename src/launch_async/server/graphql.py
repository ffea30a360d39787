"""POST /graphql: a document is parsed and checked once, then executed as often as it comes."""

import math
import re
import secrets
from collections import OrderedDict
from inspect import isawaitable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import structlog
from ariadne import SchemaBindable, load_schema_from_path, make_executable_schema
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute,
    parse,
    validate,
)

from launch_async.server.context import Request
from launch_async.server.errors import ApiError
from launch_async.server.query_limits import MAX_TOKENS, check_size
from launch_async.server.store.faults import undone

SCHEMA_FOLDER = Path(__file__).parent / "schema"
MAX_DOCUMENTS = 512
MAX_CACHED_CHARACTERS = 64 * 1024  # the client's longest document has about 8 thousand
MAX_QUERY_SECONDS = 30.0  # the client has given up by then, and asks again
TOO_LONG = "this query takes too long; ask for less at once"
TOO_DEEP = "the document is nested too deeply"
WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

log = structlog.get_logger(__name__)


class GraphQLErrors(Exception):
    """A document that we cannot execute, with every reason."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


class Question(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a GraphQL request. Python's documents come with an operation name of ""."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What goes back: an HTTP status and a JSON body."""

    status: int
    body: dict[str, Any]


class GraphQL:
    """Executes documents against our schema."""

    def __init__(self, schema: GraphQLSchema, *, query_seconds: float = MAX_QUERY_SECONDS) -> None:
        self._schema = schema
        self._query_seconds = query_seconds
        self._checked: OrderedDict[str, DocumentNode] = OrderedDict()

    @classmethod
    def load(cls, bindables: list[SchemaBindable]) -> "GraphQL":
        """Join the schema's files with the resolvers. camelCase outside is snake_case inside."""
        return cls(
            make_executable_schema(
                load_schema_from_path(SCHEMA_FOLDER), *bindables, convert_names_case=snake_case
            )
        )

    @property
    def schema(self) -> GraphQLSchema:
        """The schema in force."""
        return self._schema

    async def answer(self, question: Question, request: Request) -> Answer:
        """Execute one question. Refusals are answers too; only a bug of ours is a 500."""
        try:
            document = self.check(question.query)
        except GraphQLErrors as refused:
            return Answer(400, {"errors": [error.formatted for error in refused.errors]})
        with anyio.move_on_after(self._patience(document)):
            result = execute(
                self._schema,
                document,
                context_value=request,
                variable_values=question.variables,
                operation_name=question.operation_name or None,
            )
            executed = await result if isawaitable(result) else result
            _raise_lost(executed)
            return _answer(executed)
        return Answer(400, {"errors": [{"message": TOO_LONG}]})

    def _patience(self, document: DocumentNode) -> float:
        """Return how long a document may take: a change that has begun is seen to its end."""
        kinds = {
            definition.operation
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
        }
        return self._query_seconds if kinds == {OperationType.QUERY} else math.inf

    def check(self, text: str) -> DocumentNode:
        """Return the document, parsed and valid against the schema; else GraphQLErrors."""
        known = self._checked.get(text)
        if known is not None:
            self._checked.move_to_end(text)
            return known
        try:
            document = parse(text, no_location=False, max_tokens=MAX_TOKENS)
            check_size(document)
        except (GraphQLError, RecursionError) as error:
            told = error if isinstance(error, GraphQLError) else GraphQLError(TOO_DEEP)
            raise GraphQLErrors([told]) from error
        errors = validate(self._schema, document)
        if errors:
            raise GraphQLErrors(errors)
        if len(text) <= MAX_CACHED_CHARACTERS:
            self._checked[text] = document
            if len(self._checked) > MAX_DOCUMENTS:
                self._checked.popitem(last=False)
        return document


def snake_case(name: str, _schema: GraphQLSchema, _path: tuple[str, ...]) -> str:
    """Return the Python name of a GraphQL name: `artifactID` is artifact_id, `hexMD5` hex_md5."""
    return WORD_START.sub("_", name).lower()


def _raise_lost(result: ExecutionResult) -> None:
    """Raise what makes a request worth doing again: nothing came of it, as another was first."""
    if any(value is not None for value in (result.data or {}).values()):
        return
    for error in result.errors or ():
        if error.original_error is not None and undone(error.original_error):
            raise error.original_error


def _answer(result: ExecutionResult) -> Answer:
    if not result.errors:
        return Answer(200, {"data": result.data})
    told = [_tell(error) for error in result.errors]
    status = max((status for status, _ in told if status >= 500), default=told[0][0])
    return Answer(status, {"errors": [error for _, error in told], "data": result.data})


def _tell(error: GraphQLError) -> tuple[int, dict[str, Any]]:
    cause = error.original_error
    if cause is None or isinstance(cause, GraphQLError):
        return 400, dict(error.formatted)
    path = list(error.path or ())
    if isinstance(cause, ApiError):
        return cause.status, {"message": cause.message, "path": path}
    if isinstance(cause, RecursionError):
        return 400, {"message": "the request is nested too deeply", "path": path}
    return 500, {"message": fault(cause, path=path), "path": path}


def fault(error: BaseException, **where: Any) -> str:
    """Log a bug of ours under a short id and return the text for the client, with that id."""
    number = secrets.token_hex(4)
    log.error("request failed", fault=number, exc_info=error, **where)
    return f"the server failed; its log has the reason under {number}"
