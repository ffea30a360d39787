"""Reading back what a run logged."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_harness import Http

from client_documents import client_document
from launch_async.server import history_samples
from launch_async.server.console import parse_console
from launch_async.server.history import merge_keys, parse_line
from launch_async.server.history_samples import thin_out
from launch_async.server.resolvers import runs

pytestmark = pytest.mark.anyio

RUN = {"entity": "tester", "project": "proj", "run": "r1"}
NAMED = {"entity": "tester", "project": "proj", "name": "r1"}


async def log(http: Http, *rows: dict[str, Any]) -> None:
    content = [json.dumps(row) for row in rows]
    await http.stream("r1", {"files": {"wandb-history.jsonl": {"offset": 0, "content": content}}})


async def ask(http: Http, query: str, **variables: Any) -> Any:
    return (await http.data(client_document(query), **variables))["project"]["run"]


async def test_a_page_has_the_steps_from_the_first_up_to_the_last_but_not_it(http: Http) -> None:
    await log(http, *({"_step": step} for step in range(10)))
    steps = {"minStep": 2, "maxStep": 6, "pageSize": 100}
    lines = (await ask(http, "HistoryPage.core", **RUN, **steps))["history"]
    assert [json.loads(line)["_step"] for line in lines] == [2, 3, 4, 5]
    short = (await ask(http, "HistoryPage.core", **RUN, **{**steps, "pageSize": 2}))["history"]
    assert [json.loads(line)["_step"] for line in short] == [2, 3]


async def test_samples_are_spread_and_end_with_the_last_line(http: Http) -> None:
    await log(http, *({"_step": step} for step in range(100)))
    lines = (await ask(http, "RunFullHistory.history", **NAMED, samples=10))["history"]
    steps = [json.loads(line)["_step"] for line in lines]
    assert steps == [9, 19, 29, 39, 49, 59, 69, 79, 89, 99]


async def test_sampled_history_has_rows_with_every_key_only(http: Http) -> None:
    await log(
        http,
        {"_step": 0, "a": 1},
        {"_step": 1, "a": 2, "b": {"c": 3}},
        {"_step": 2, "b": {"c": 4}},
        {"_step": 3, "a": 5, "b": {"c": 6}},
    )
    spec = json.dumps({"keys": ["_step", "a", "b.c"], "samples": 500})
    found = (await ask(http, "SampledHistoryPage.core", **RUN, spec=spec))["sampledHistory"]
    assert found == [[{"_step": 1, "a": 2, "b.c": 3}, {"_step": 3, "a": 5, "b.c": 6}]]


@pytest.mark.parametrize(
    ("last", "samples", "found"), [(5, 3, [3, 4, 5]), (6, 3, [3, 4, 5]), (6, 1000, [3, 4, 5])]
)
async def test_a_spec_names_its_last_step_or_the_one_after_it(
    http: Http, last: int, samples: int, found: list[int]
) -> None:
    """Clients since 0.28 name the last step, and ask for as many samples as there are steps."""
    await log(http, *({"_step": step, "a": 1} for step in range(10)))
    spec = json.dumps({"keys": ["_step", "a"], "minStep": 3, "maxStep": last, "samples": samples})
    (points,) = (await ask(http, "SampledHistoryPage.core", **RUN, spec=spec))["sampledHistory"]
    assert [point["_step"] for point in points] == found


async def test_a_bad_spec_is_a_400(http: Http) -> None:
    await log(http, {"_step": 0})
    reply = await http.ask(client_document("SampledHistoryPage.core"), **RUN, spec='{"keys":3}')
    assert reply.status == 400


async def test_nested_metrics_are_known_by_dotted_names(http: Http) -> None:
    await log(
        http,
        {"_step": 0, "dict": {"val1": 1, "img": {"_type": "image-file", "path": "x"}}},
        {"_step": 11, "dict": {"val1": 3}, "name": "n", "flag": True, "none": None, "list": [1]},
    )
    known = (await ask(http, "RunHistoryKeys.runs", **NAMED))["historyKeys"]
    assert known["lastStep"] == 11
    assert known["keys"]["dict.val1"] == {
        "typeCounts": [{"type": "number", "count": 2}],
        "monotonic": True,
        "previousValue": 3,
    }
    kinds = {name: entry["typeCounts"][0]["type"] for name, entry in known["keys"].items()}
    assert kinds["dict.img"] == "image-file"
    assert (kinds["name"], kinds["flag"], kinds["none"], kinds["list"]) == (
        "string",
        "boolean",
        "nil",
        "list",
    )


async def test_a_run_without_history_has_no_keys(http: Http) -> None:
    await http.stream("r1", {})
    known = (await ask(http, "RunHistoryKeys.runs", **NAMED))["historyKeys"]
    assert known == {"lastStep": -1, "keys": {}, "sets": []}


async def test_console_pages_follow_each_other(http: Http) -> None:
    content = [f"2026-11-22T14:51:36.686115 line {number}" for number in range(5)]
    content.append("ERROR 2026-11-22T14:51:37 oh")
    await http.stream("r1", {"files": {"output.log": {"offset": 0, "content": content}}})
    where = {"entity": "tester", "project": "proj", "runName": "r1"}
    seen: list[Any] = []
    after = None
    while True:
        run = await ask(http, "RunConsoleLogPage.core", **where, first=4, after=after)
        seen += [edge["node"] for edge in run["logLines"]["edges"]]
        if not run["logLines"]["pageInfo"]["hasNextPage"]:
            break
        after = run["logLines"]["pageInfo"]["endCursor"]
    assert [line["line"] for line in seen] == [*(f"line {n}" for n in range(5)), "oh"]
    assert [line["level"] for line in seen] == ["info"] * 5 + ["error"]
    assert seen[0]["timestamp"] == "2026-11-22T14:51:36.686115"
    tail = await ask(http, "RunConsoleLogTail.core", **where, last=2)
    assert tail["logLineCount"] == 6
    assert [edge["node"]["number"] for edge in tail["logLines"]["edges"]] == [4, 5]


def test_structured_console_lines_are_taken_apart() -> None:
    line = parse_console(3, '{"level":"error","ts":"2026-11-22T14:54:45.5","content":"text"}')
    assert (line.number, line.level, line.timestamp, line.line) == (
        3,
        "error",
        "2026-11-22T14:54:45.5",
        "text",
    )


@pytest.mark.parametrize("text", ["", "plain", '{"a": 1}', "{", "ERROR of mine", "2026-11-22 x"])
def test_console_text_of_no_known_form_stays_whole(text: str) -> None:
    assert parse_console(0, text).line == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=5), max_size=5))
def test_keys_of_any_lines_are_counted(contents: list[dict[str, Any]]) -> None:
    lines = [parse_line(json.dumps(content)) for content in contents]
    together = json.loads(merge_keys("{}", lines))
    one_by_one = "{}"
    for line in lines:
        one_by_one = merge_keys(one_by_one, [line])
    assert str(json.loads(one_by_one)) == str(together)
    for name, entry in together.items():
        counted = sum(count["count"] for count in entry["typeCounts"])
        assert counted == sum(name in line.metrics for line in lines)


@given(st.integers(0, 200), st.integers(1, 50))
def test_thinning_keeps_the_order_and_the_last_point(count: int, samples: int) -> None:
    points = [{"n": number} for number in range(count)]
    thin = thin_out(points, samples)
    assert len(thin) == min(count, samples)
    assert thin == sorted(thin, key=lambda point: point["n"])
    assert thin[-1:] == points[-1:]
    assert len({point["n"] for point in thin}) == len(thin)


@pytest.mark.parametrize("samples", [-1, 0, 2**31 - 1])
async def test_no_number_of_samples_asks_for_everything(
    http: Http, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    monkeypatch.setattr(history_samples, "MAX_SAMPLES", 5)
    monkeypatch.setattr(runs, "MAX_HISTORY_PAGE", 5)
    await log(http, *({"_step": step, "a": step} for step in range(103)))
    query = """query($n: Int, $spec: [JSONString!]!) {
      project(name: "proj", entityName: "tester") { run(name: "r1") {
        page: history(minStep: 0, samples: $n) spread: history(samples: $n)
        sampledHistory(specs: $spec) } } }"""
    spec = json.dumps({"keys": ["a"], "samples": samples})
    found = (await http.data(query, n=samples, spec=[spec]))["project"]["run"]
    assert len(found["page"]) <= 5
    assert len(found["spread"]) <= 5
    (points,) = found["sampledHistory"]
    assert len(points) <= 5
    if samples > 0:
        assert points[-1] == {"a": 102}
        steps = [point["a"] for point in points]
        assert max(b - a for a, b in pairwise([0, *steps])) < 60


async def points_of(http: Http, **spec: Any) -> list[dict[str, Any]]:
    text = json.dumps(spec)
    run = await ask(http, "SampledHistoryPage.core", **RUN, spec=text)
    (points,) = run["sampledHistory"]
    return list(points)


async def test_a_rare_key_is_sampled_where_it_is(http: Http) -> None:
    await log(
        http,
        *({"_step": step} | ({"acc": step} if step % 100 == 7 else {}) for step in range(2000)),
    )
    points = await points_of(http, keys=["_step", "acc"], samples=5)
    assert [point["acc"] for point in points] == [307, 707, 1107, 1507, 1907]
    assert len(await points_of(http, keys=["acc"], samples=500)) == 20


async def test_a_keys_name_elsewhere_in_a_line_is_not_that_key(http: Http) -> None:
    await log(
        http,
        *(
            {"_step": step, "val": {"loss": 1}, "said": "loss"}
            | ({"loss": step} if step % 500 == 3 else {})
            for step in range(2000)
        ),
    )
    points = await points_of(http, keys=["loss"], samples=4)
    assert [point["loss"] for point in points] == [3, 503, 1003, 1503]


@pytest.mark.parametrize("key", ["a.b", "a/b c", 'quo"te', "<b>&", "é", "back\\slash", ""])
async def test_a_key_of_any_signs_is_found(http: Http, key: str) -> None:
    escaped = json.dumps({key: 2}).replace("<", "\\u003c").replace("&", "\\u0026")
    content = [json.dumps({key: 1}), escaped, json.dumps({key: 3}, ensure_ascii=False), "{}"]
    await http.stream("r1", {"files": {"wandb-history.jsonl": {"offset": 0, "content": content}}})
    assert await points_of(http, keys=[key], samples=9) == [{key: 1}, {key: 2}, {key: 3}]


async def test_lines_of_one_step_are_all_in_a_page_that_wants_all_its_steps(http: Http) -> None:
    await log(http, *({"_step": step // 3, "n": step} for step in range(12)))
    steps = {"minStep": 1, "maxStep": 3, "pageSize": 2}
    lines = (await ask(http, "HistoryPage.core", **RUN, **steps))["history"]
    assert [json.loads(line)["n"] for line in lines] == [3, 4, 5, 6, 7, 8]
