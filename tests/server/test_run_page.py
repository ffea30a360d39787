"""The page of a run: for members only, and nothing that a job writes becomes markup."""

import json

import aiohttp
import pytest
from server_harness import Http

from launch_async.server.users import create_api_key, create_user
from launch_async.server.web.pages import charts_of


def test_a_chart_has_the_first_value_left_and_the_highest_on_top() -> None:
    bodies = [json.dumps({"_step": step, "loss": 10 - step, "note": "x"}) for step in range(11)]
    [chart] = charts_of(bodies)
    assert (chart.name, chart.low, chart.high, chart.last) == ("loss", "0", "10", "0")
    assert chart.points.split()[0] == "0.00,0.00"
    assert chart.points.split()[-1] == "100.00,100.00"


@pytest.mark.parametrize(
    "bodies", [[], ["no json"], ['{"a": NaN}', '{"a": 1}'], ['{"a": true}', '{"a": "x"}']]
)
def test_what_is_no_line_of_numbers_has_no_chart(bodies: list[str]) -> None:
    assert charts_of(bodies) == []


def test_equal_values_and_missing_steps_are_drawn() -> None:
    [chart] = charts_of(['{"a": 1}', '{"a": 1}'])
    assert chart.points == "0.00,100.00 100.00,100.00"


UPSERT = """mutation { upsertBucket(input: {
  name: "r1", modelName: "p", config: "{\\"lr\\": {\\"value\\": 0.5}}"
}) { bucket { name } } }"""
PATH = "/tester/p/runs/r1"


@pytest.mark.anyio
async def test_a_member_sees_the_run_and_its_markup_is_text(http: Http) -> None:
    await http.data(UPSERT)
    evil = "<script>alert(1)</script>"
    login = {"Authorization": aiohttp.encode_basic_auth("anyone", http.server.key)}
    stream = {
        "wandb-history.jsonl": {
            "offset": 0,
            "content": [json.dumps({"_step": step, evil: step}) for step in range(3)],
        },
        "output.log": {"offset": 0, "content": [f"hello {evil}"]},
    }
    await http.send("POST", "/files/tester/p/r1/file_stream", json={"files": stream}, headers=login)
    reply = await http.send("GET", PATH, headers=login)
    page = reply.body.decode()
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<td>lr</td><td>0.5</td>" in page
    assert "hello &lt;script&gt;" in page
    assert "<polyline" in page
    assert evil not in page


@pytest.mark.anyio
async def test_without_a_key_a_browser_is_asked_for_one(http: Http) -> None:
    await http.data(UPSERT)
    reply = await http.send("GET", PATH)
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"].startswith("Basic ")
    assert b"0.5" not in reply.body


@pytest.mark.anyio
async def test_a_run_that_is_not_there_or_not_ones_own_is_not_found(http: Http) -> None:
    await http.data(UPSERT)
    async with http.server.services.store.write() as connection:
        user_id = await create_user(connection, "stranger")
        key = await create_api_key(connection, user_id)
    stranger = {"Authorization": aiohttp.encode_basic_auth("anyone", key)}
    assert (await http.send("GET", PATH, headers=stranger)).status == 404
    member = {"Authorization": aiohttp.encode_basic_auth("anyone", http.server.key)}
    assert (await http.send("GET", "/tester/p/runs/none", headers=member)).status == 404
