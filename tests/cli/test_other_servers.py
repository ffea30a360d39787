"""What answers at an address need not be what is looked for there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from launch_async.cli.main import main

TOKEN = "t0ken" * 8
COMMANDS = [
    ("agent", "status"),
    ("agent", "pause", "q"),
    ("agent", "explain", "q"),
    ("item", "explain", "i"),
    ("item", "logs", "i"),
    ("item", "logs", "-f", "i"),
]
PROBE = ("agent", "status", "--check", "livez")
ABSENT = [(404, b"404: Not Found"), (404, b'{"errors": [{}], "error": "Not Found"}'), (301, b"")]


@contextmanager
def answering(status: int, body: bytes, location: str = "") -> Iterator[tuple[str, list[str]]]:
    """A server that says this to everybody; its address, and the tokens that it was sent."""
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", tokens
        finally:
            server.shutdown()
            thread.join()


def ask(*words: str) -> Result:
    done = CliRunner(env={"LAUNCH_ASYNC_ADMIN_TOKEN": TOKEN}).invoke(main, [*words])
    assert done.exit_code == 1, done.output
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done


@pytest.mark.parametrize("command", [*COMMANDS, PROBE])
@pytest.mark.parametrize(("status", "body"), ABSENT)
def test_another_server_is_no_agent(status: int, body: bytes, command: tuple[str, ...]):
    with answering(status, body) as (address, _):
        done = ask(*command, "--admin", address)
    assert "no launch-async agent of this version" in done.stderr


def test_who_answers_everything_with_200_is_no_content_probe():
    with answering(200, b"") as (address, _):
        assert "no launch-async agent" in ask(*PROBE, "--admin", address).stderr


def test_a_token_is_sent_nowhere_else():
    with answering(200, b"{}") as (other, tokens):
        with answering(307, b"", location=f"http://{other}/") as (address, _):
            ask("agent", "pause", "q", "--admin", address)
        assert tokens == []


@pytest.mark.parametrize(
    "words", [("user", "list"), ("user", "create", "a"), ("team", "list", "t"), ("audit",)]
)
def test_another_server_is_no_control_plane(words: tuple[str, ...], tmp_path: Path):
    (tmp_path / "key").write_text(TOKEN)
    with answering(200, b"{}") as (address, _):
        done = ask(
            *("admin", "--url", f"http://{address}", "--admin-key-file", str(tmp_path / "key")),
            *words,
        )
    assert "is no launch-async server of this version" in done.stderr


@pytest.mark.parametrize("name", ["", ".", "..", "\udcff"])
@pytest.mark.parametrize("command", [("agent", "pause"), ("item", "cancel"), ("item", "logs")])
def test_what_is_no_name_is_the_name_of_nothing(name: str, command: tuple[str, ...]):
    with answering(200, b"{}") as (address, tokens):
        done = ask(*command, name, "--admin", address)
    assert "nothing at this agent is called" in done.stderr
    assert tokens == []
