"""Values that fit a GraphQL type and a server that is only polite does not survive.

Real ones come first in each list: they lead to where a hostile one does harm.
"""

import base64
import json
from typing import Any

from graphql import (
    GraphQLInputObjectType,
    GraphQLInputType,
    get_named_type,
    get_nullable_type,
    is_enum_type,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
)
from hypothesis import strategies as st

from launch_async.server.ids import encode_id, encode_run_id

ENTITY = "tester"
PROJECT = "model-registry"  # holds the queues; the other things are there too
RUN = "r1"
MD5 = base64.b64encode(bytes(16)).decode()
LONG = "x" * 100_000
DEEP = 2000

TEXTS = [
    "", " ", "\0", "a\0b", "\ud800", "\udfff\ud800", "\uffff", "\u202e", "é" * 300, LONG, "\n",
    "\\",
    "..", "../../etc/passwd", "/", "a/b", ".", "%", "%00", "%2e%2e%2f", "_", "*", "[", "(?:a+)+$",
    "'; drop table runs; --", '"', "`", "$1", ":name", "{{a}}", "${x}", "<script>", "null", "true",
    "-1", "0", "1e999", "9" * 5000, "٣", "²", "NaN", ":", "a:", ":a", "a:b:c", "a:v", "a:v-1",
    "a:v" + "9" * 30, "+", "-", "+created_at", "-summary_metrics.x", "-config.a.value", "+\0",
    "RUNNING", "finished", "2030-01-01T00:00:00", "2030-01-01T00:00:00Z", "0000-00-00", "CON",
]  # fmt: skip
KINDS = [
    "ApiKey",
    "Artifact",
    "ArtifactAlias",
    "ArtifactCollection",
    "ArtifactCollectionMembership",
    "ArtifactFile",
    "ArtifactManifest",
    "ArtifactType",
    "AuditEntry",
    "DefaultResourceConfig",
    "Entity",
    "LaunchAgent",
    "Project",
    "Run",
    "RunFile",
    "RunQueue",
    "RunQueueItem",
    "RunQueuePlace",
    "Tag",
    "User",
]
SEEDED = range(1, 4)  # a new database counts from 1
NUMBERS = ("1", "0", "-1", "9" * 18, "9" * 19, "9" * 5000, "²", "1:2", "1:", "")
OUR_KEY = encode_id("ApiKey", 1)  # whoever deletes it sees nothing but 401 from then on
IDS = [
    *sorted({encode_id(kind, number) for kind in KINDS for number in NUMBERS} - {OUR_KEY}),
    encode_run_id(RUN, PROJECT, ENTITY), encode_id("RunFile", 1, 1), encode_id("RunFile", "a", "b"),
    encode_id("RunQueuePlace", 2, 1), encode_id("RunQueuePlace", "9" * 19, "9" * 19),
    encode_run_id("\0", "..", ENTITY),
    encode_run_id(LONG, PROJECT, ENTITY),
    base64.b64encode(b"Run:v1:\xff:\xfe:\xfd").decode(),
    base64.urlsafe_b64encode(b"RunQueueItem:\xff\xfe").decode(),
    "====", "=", "a", "YQ", "YQ==\n", "-_-_", "+/+/",
]  # fmt: skip
INTS = [0, 1, -1, 2, 100, 10_000, 2**31 - 1, -(2**31)]
WRONG_INTS = [2**31, 2**63, 10**30, 1.5, 1e300, "1", True, float("nan")]
INT64S = [*INTS, 2**31, 2**53, 2**63 - 1, -(2**63), "7", "-9223372036854775808"]
WRONG_INT64S = [2**63, -(2**70), "9" * 5000, "1_0", " 1", "²", 1.5, True]
TIMES = ["2030-01-01T00:00:00", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "x", 5]
JSON_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, 2**63, 2**64, -(2**70), 10**400, float("nan"), float("inf"),
    "", "\0", "\ud800", LONG, [], {}, [None], {"": 1}, {"\0": "\0"}, {"\ud800": 1},
    {"a.b": {"c": 1}},
    {"$gt": 1}, {"value": {"value": {}}}, {"_type": "x"}, {"_wandb": 5}, {"_wandb": {"value": 1}},
    {"a": {"value": 1, "desc": None}}, [[[[[]]]]] * 3, {"a" * 10_000: "b"},
    {"x": list(range(2000))},
]  # fmt: skip
JSON_TEXTS = [
    *(json.dumps(value) for value in JSON_VALUES),
    "[" * DEEP, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * 100_000, "{", "",
    " ",
    '"\\ud800"', "\ufeff{}", "{}\0", "{'a': 1}", "1e999", "-0", "01", "nul", '{"a":1,"a":2}',
    "\ud800",
    "[" + "1," * 20_000 + "1]", "{" + ",".join(f'"k{n}":{n}' for n in range(3000)) + "}",
]  # fmt: skip

SPEC = {"entity": ENTITY, "project": PROJECT, "resource": None, "job": f"{ENTITY}/p/j:latest"}
ODD: list[Any] = [None, 5, -1, 10**400, 1.5, True, "", "x", "\0", "\ud800", [], [5], {}, {"a": []}]
SPECS = [
    SPEC,
    *({**SPEC, key: odd} for key in ("resource_args", "overrides", "docker", "git") for odd in ODD),
    *(
        {**SPEC, key: odd}
        for key in ("entity", "project", "job", "uri", "image_uri")
        for odd in ODD
    ),
    *(
        {**SPEC, key: odd}
        for key in ("resource", "run_id", "author", "_resume_count")
        for odd in ODD
    ),
    *({**SPEC, "resource_args": {"local-process": odd}} for odd in ODD),
    {**SPEC, "resource_args": {"local-process": {"a": "{{n}} {{s}} {{x}}"}}},
    {**SPEC, "docker": {"docker_image": "i"}, "job": None},
]
CONFIGS = [
    {"a": {"value": 1}},
    *({"a": {"value": odd}} for odd in ODD),
    *({"a": odd} for odd in ODD),
]
QUEUE_CONFIGS = [
    {"resource_args": {"local-process": {"a": "{{n}}"}}},
    *({"resource_args": odd} for odd in ODD),
    *({"resource_args": {"local-process": odd}} for odd in ODD),
]
VARIABLES = [
    {"n": {"schema": {"type": "integer", "default": 1}}, "s": {"schema": {"type": "string"}}},
    *({"n": odd} for odd in ODD),
    *({"n": {"schema": odd}} for odd in ODD),
    *(
        {"n": {"schema": {"type": kind, key: odd}}}
        for kind in ("integer", "number", "string", "boolean")
        for key in ("default", "minimum", "maximum", "enum", "type", "title")
        for odd in [*ODD, float("inf"), "1e999", "9" * 5000]
    ),
    {"\0": {"schema": {"type": "string"}}},
]
VARIABLE_VALUES = [{"n": 1}, *({"n": odd} for odd in [*ODD, "9" * 5000, "1e999"]), {"\0": 1}]
FIELDS = [
    "name", "display_name", "state", "created_at", "createdAt", "heartbeat_at", "tags", "group",
    "jobType", "username", "user.username", "config.a", "config.a.value", "summary_metrics.x",
    "summary_metrics.loss.min", "config.", "config..a", "summary_metrics", "sweep", "host", "_step",
    "duration", "summary_metrics.\0", "config.\ud800", "nonsense", "", "$x", "config." + "a." * 500,
]  # fmt: skip
OPERANDS = [1, -1.5, 10**400, 2**63, float("nan"), "x", "\0", "\ud800", "2030-01-01T00:00:00", None,
            True, [], [1, "x", None], {}, {"$regex": "("}, [[1]], "(?:a+)+$",
            "9" * 5000]  # fmt: skip
OPERATORS = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$all",
    "$exists",
    "$regex",
    "$not",
    "$type",
    "$size",
    "$options",
]
FILTERS = [
    {},
    *({field: 1} for field in FIELDS),
    *({field: {"$gt": "x"}} for field in FIELDS),
    *({"config.a.value": {op: operand}} for op in OPERATORS for operand in OPERANDS),
    *({"created_at": {op: operand}} for op in OPERATORS for operand in OPERANDS),
    *({"state": {op: operand}} for op in OPERATORS for operand in OPERANDS),
    *({"tags": {op: operand}} for op in OPERATORS for operand in OPERANDS),
    *({op: operand} for op in ("$and", "$or", "$nor", "$not", "$x") for operand in OPERANDS),
    {"$and": [{"name": "x"}] * 2000}, {"name": {"$in": ["x"] * 50_000}},
]  # fmt: skip
SAMPLES = [
    {"keys": ["x"], "samples": 10},
    *({"keys": odd} for odd in ODD), *({"keys": [], "samples": odd} for odd in ODD),
    *({"keys": ["x", "_step"], "minStep": odd, "maxStep": odd} for odd in [*ODD, 2**63, -(2**63)]),
]  # fmt: skip
AGENT_CONFIGS = [
    {"max_jobs": 1, "queues": ["q"], "identity": "i" * 16},
    *({"identity": o} for o in ODD),
]
LINKS = [{"links": [{"label": "a", "url": "http://b"}]}, *({"links": odd} for odd in ODD)]
ODD_BY_TYPE: dict[str, list[Any]] = {
    "ID": [*IDS, *TEXTS],
    "Int": [*INTS, *WRONG_INTS],
    "Int64": [*INT64S, *WRONG_INT64S],
    "Boolean": [True, False],
    "JSON": JSON_VALUES,
    "JSONString": JSON_TEXTS,
    "DateTime": TIMES,
    "Duration": TIMES,
}


def _seeded(kind: str) -> list[str]:
    return [each for number in SEEDED if (each := encode_id(kind, number)) != OUR_KEY]


BY_NAME: dict[str, list[Any]] = {
    "project": [PROJECT], "run": [RUN], "runQueue": ["q"], "perPage": [10], "type": ["dataset"],
    "collection": ["data"], "fileNames": ["f0"], "spec": SAMPLES, "tags": ["t"],
    "entityName": [ENTITY], "entity": [ENTITY], "projectName": [PROJECT], "modelName": [PROJECT],
    "runName": [RUN], "queueName": ["q"], "aliasName": ["latest", "v0"],
    "artifactTypeName": ["dataset"],
    "artifactCollectionName": ["data"], "artifactCollectionNames": ["data"],
    "alias": ["latest", "best"],
    "name": [RUN, "q", "data", "data:latest", "dataset", PROJECT, ENTITY],
    "digest": [MD5, "0" * 32],
    "md5": [MD5], "hexMD5": ["0" * 32], "runSpec": SPECS, "filters": FILTERS, "specs": SAMPLES,
    "config": [*CONFIGS, *QUEUE_CONFIGS], "summaryMetrics": CONFIGS, "metadata": CONFIGS,
    "labels": [["a"], *ODD], "resourceConfig": QUEUE_CONFIGS, "templateVariables": VARIABLES,
    "templateVariableValues": VARIABLE_VALUES, "agentConfig": AGENT_CONFIGS, "externalLinks": LINKS,
    "resourceType": ["local-process"], "resource": ["local-process"],
    "order": ["+created_at", "-name"],
    "state": ["finished", "running", "crashed"], "states": ["PENDING", "LEASED"], "stage": ["run"],
    "agentStatus": ["RUNNING", "KILLED"], "pattern": ["%", "a_%"], "names": ["f0", "config.yaml"],
    "files": ["f0", "media/a.txt", encode_id("RunFile", 1, 1)], "storageLayout": ["V2"],
    "manifestVersion": ["1"], "keys": ["a", "t"],
    "artifactID": _seeded("Artifact"), "baseArtifactID": _seeded("Artifact"),
    "birthArtifactID": _seeded("Artifact"), "artifactManifestID": _seeded("ArtifactManifest"),
    "artifactSequenceID": _seeded("ArtifactCollection"), "clientID": ["c1"],
    "sequenceClientID": ["c2"],
    "defaultResourceConfigID": _seeded("DefaultResourceConfig"), "queueID": _seeded("RunQueue"),
    "queueIDs": _seeded("RunQueue"), "runQueues": _seeded("RunQueue"),
    "runQueueItemId": _seeded("RunQueueItem"), "launchAgentId": _seeded("LaunchAgent"),
    "id": [encode_run_id(RUN, PROJECT, ENTITY),
    *(each for kind in KINDS for each in _seeded(kind))],
    "liveKeys": ["x"], "tagName": ["t"], "hostname": ["h"], "hostName": ["h"],
    "after": ["MA==", "1", encode_id("RunQueuePlace", 2, 1)],
}  # fmt: skip


def choices(given: GraphQLInputType, name: str) -> list[Any]:
    """Return values for an argument or an input field that is no object, the real ones first."""
    kind = get_named_type(given)
    known = BY_NAME.get(name, [])
    if is_enum_type(kind):
        return [*kind.values, "NONSENSE", 5]
    if kind.name == "JSONString":
        known = [json.dumps(value) for value in known]
    return [*known, *ODD_BY_TYPE.get(kind.name, TEXTS)]


def real(given: GraphQLInputType, name: str) -> Any:
    """Return a value that leads somewhere, or None where nothing needs to be given."""
    kind = get_named_type(given)
    if is_input_object_type(kind):
        parts = {each: real(field.type, each) for each, field in kind.fields.items()}
        value: Any = {each: part for each, part in parts.items() if part is not None}
    elif name in BY_NAME or is_non_null_type(given):
        value = choices(given, name)[0]
    else:
        return None
    return [value] if is_list_type(get_nullable_type(given)) else value


def values(given: GraphQLInputType, name: str) -> st.SearchStrategy[Any]:
    """Return a strategy of values for an argument: half of them real, where we know real ones."""
    if is_non_null_type(given):
        return _some(given.of_type, name)
    return st.none() | _some(given, name)


def fields_of(kind: GraphQLInputObjectType) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy of input objects."""
    parts = {name: values(field.type, name) for name, field in kind.fields.items()}
    needed = {name for name, field in kind.fields.items() if is_non_null_type(field.type)}
    return st.fixed_dictionaries(
        {name: parts[name] for name in parts if name in needed},
        optional={name: parts[name] for name in parts if name not in needed},
    )


def _some(given: GraphQLInputType, name: str) -> st.SearchStrategy[Any]:
    if is_list_type(given):
        one = st.deferred(lambda: values(given.of_type, name))
        return st.lists(one, max_size=3) | one.map(lambda value: [value] * 300)
    kind = get_named_type(given)
    if is_input_object_type(kind):
        return fields_of(kind)
    every = choices(given, name)
    real = every[: max(1, len(BY_NAME.get(name, [])))]
    return st.sampled_from(real) | st.sampled_from(every)
