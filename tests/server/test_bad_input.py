"""Whatever comes in, the answer is JSON and never a 500."""

import asyncio
import json
from typing import Any

import pytest
from fuzz_harness import FUZZ
from hypothesis import given
from hypothesis import strategies as st
from server_harness import Http, Server

from client_documents import client_document
from launch_async.server.ids import encode_id, encode_run_id
from launch_async.server.json_text import read_json

pytestmark = pytest.mark.anyio

RUN = {"entity": "tester", "project": "proj", "run": "r1", "name": "r1"}
ODD_TEXTS = ["", "\x00", "\ud800", "a/b", "..", "%2e%2e", "x" * 300, "ß" * 128, "9" * 5000, "{{a}}"]
ODD_NUMBERS = [0, -1, 2**31, 2**63, 2**64, 10**30, -(2**70), 1e300, float("nan"), float("inf")]
ODD_IDS = [
    encode_id(kind, part)
    for kind in ("Artifact", "RunQueueItem", "RunQueue", "LaunchAgent", "RunFile", "Project")
    for part in ("1", "0", "-1", "9" * 40, "9" * 5000, "²", "1:2", "")
]
ODD_IDS += [encode_run_id("a", "..", "tester"), encode_run_id("a", "proj", "tester"), "====", "a"]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(ODD_NUMBERS),
    st.integers(),
    st.floats(),
    st.sampled_from(ODD_TEXTS),
    st.sampled_from(ODD_IDS),
    st.text(max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
json_texts = st.one_of(
    values.map(json.dumps), st.sampled_from(["[" * 5000, '{"a":' * 3000, "NaN", "{", '"\\ud800"'])
)
blocks = st.fixed_dictionaries(
    {},
    optional={
        "offset": st.sampled_from([0, 1, 7, 2**31, 2**63, 10**30, -1]) | scalars,
        "content": st.lists(json_texts | st.text() | scalars, max_size=4),
    },
)
posts = st.fixed_dictionaries(
    {},
    optional={
        "files": st.dictionaries(
            st.sampled_from(
                ["wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json", "output.log"]
            ),
            blocks,
        ),
        "uploaded": st.lists(scalars, max_size=2),
        "preempting": st.none() | st.booleans(),
        "complete": st.none() | st.booleans(),
        "exitcode": st.none() | st.integers() | st.sampled_from([3221225477, 2**31]),
    },
)
READ_BACK = """
query($entity: String!, $project: String!, $run: String!, $spec: [JSONString!]!) {
  project(name: $project, entityName: $entity) { run(name: $run) {
    state exitcode config summaryMetrics systemMetrics historyKeys historyTail eventsTail
    historyLineCount eventsLineCount logLineCount wandbConfig(keys: ["t"])
    history(samples: 10) events(samples: 10) sampledHistory(specs: $spec)
    parquetHistory(liveKeys: ["a"]) { liveData } logLines(last: 5) { edges { node { line } } }
  } }
}
"""


@FUZZ
@given(posts)
async def test_any_file_stream_body_is_taken_or_refused(http: Http, post: Any) -> None:
    body = json.dumps(post).encode()
    headers = {"Authorization": f"Bearer {http.server.key}"}
    path = "/files/tester/proj/r1/file_stream"
    await http.stream("r1", {})
    reply = await http.send("POST", path, data=body, headers=headers)
    assert reply.status in {200, 400}, reply.body
    spec = json.dumps({"keys": [], "samples": 10})
    read = await http.ask(READ_BACK, **RUN, spec=[spec])
    assert read.status == 200, read.body
    page = await http.send("GET", "/tester/proj/runs/r1", headers=headers)
    assert page.status == 200, page.body


async def test_what_python_calls_json_is_kept(http: Http) -> None:
    lines = [
        '{"a": NaN, "b": Infinity, "big": 1000000000000000000000000000000, "_step": 0}',
        '{"a": -Infinity, "s": "\\ud800", "huge": 1' + "0" * 400 + ', "_step": 1e300}',
    ]
    config = '{"lr": {"value": NaN}, "_wandb": {"value": {"t": {"x": NaN}}}}'
    await http.data(
        client_document("UpsertBucket.core"),
        entity="tester",
        project="proj",
        name="r1",
        config=config,
    )
    body = {"files": {"wandb-history.jsonl": {"offset": 0, "content": lines}}}
    assert (await http.stream("r1", body)).status == 200
    spec = json.dumps({"keys": ["a"], "samples": 10})
    read = (await http.data(READ_BACK, **RUN, spec=[spec]))["project"]["run"]
    assert read["config"] == config
    assert json.loads(read["historyTail"]) == lines[-1:]
    assert read["sampledHistory"] == [[{"a": None}, {"a": None}]]
    assert read["historyKeys"]["lastStep"] == 0


@pytest.mark.parametrize(
    ("given_code", "kept"), [(3221225477, -1073741819), (255, 255), (-9, -9), (2**32, 0)]
)
async def test_an_exit_code_of_windows_is_kept_in_32_bits(
    http: Http, given_code: int, kept: int
) -> None:
    await http.stream("r1", {"complete": True, "exitcode": given_code})
    assert await http.server.rows("select exit_code from runs") == [(kept,)]


async def test_an_id_of_nothing_is_not_found(http: Http) -> None:
    fail = (
        "mutation($id: ID!) { failRunQueueItem(input: "
        '{runQueueItemId: $id, message: "m", stage: "s"}) { success } }'
    )
    for query in (
        "query($id: ID!) { artifact(id: $id) { id } }",
        "query($id: ID!) { launchAgent(id: $id) { id } }",
        "mutation($id: ID!) { stopRun(input: {id: $id}) { success } }",
        "mutation($id: ID!) { deleteFiles(input: {files: [$id]}) { success } }",
        fail,
    ):
        for value in ODD_IDS:
            status = (await http.ask(query, id=value)).status
            assert status in {200, 400, 404}, (query, value)
            assert status == 200 or query is not fail, value


@pytest.mark.parametrize(
    "filters",
    [
        {"$and": [{"name": "x"}] * 2000},
        {"name": "x", "$and": [{"$and": [{"$and": []}]}] * 60},
        {"$or": [{"$or": [{"$or": [{"$or": [{"$or": []}]}]}]}]},
    ],
)
async def test_filters_of_any_size_are_answered(http: Http, filters: Any) -> None:
    await http.stream("r1", {})
    query = """query($f: JSONString) { project(name: "proj", entityName: "tester") {
        runs(filters: $f) { edges { node { name } } } } }"""
    assert (await http.ask(query, f=json.dumps(filters))).status in {200, 400}


@pytest.mark.parametrize(
    "head",
    [
        b"GET /storage/\xff?signature=x&expires=1 HTTP/1.1",
        b"GET /storage/a?signature=\xff&expires=\xff HTTP/1.1",
        b"GET /storage/%2e%2e/%2e%2e/secret?expires=1&signature=x HTTP/1.1",
        b"POST /files/\xff/p/r/file_stream HTTP/1.1",
        b"GET /artifactsV2/x/\xff/p/c/a/b/m/n HTTP/1.1",
        b"POST /graphql HTTP/1.1\r\nAuthorization: Basic \xff\xfe",
        b"POST /graphql HTTP/1.1\r\nAuthorization: Bearer \xff\xfe",
    ],
)
async def test_bytes_that_are_no_text_are_refused(server: Server, head: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head + b"\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    assert 400 <= status < 500


@given(values)
def test_what_json_dumps_writes_is_read_and_can_be_written_again(value: Any) -> None:
    read = read_json(json.dumps(value))
    json.dumps(read).encode()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nope", "{'a': 1}"])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(text)
