"""What `.dockerignore` leaves out: Docker's rules, compared with what `docker build` sends."""

import http.server
import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_builds import BUILDKIT, command_with_buildkit, docker_build, write

from launch_async.domain.errors import ItemError, Reason
from launch_async.images.ignore import MAX_PATTERNS, Ignore, parse_ignore

TREE = (
    *("a", "b.txt", "B.TXT", "c.pyc", ".env", "notes.md", "#hash", "!bang", "with space", "x^y"),
    *("sub/a", "sub/b.txt", "sub/c.pyc", "sub/.env", "sub/deep/a", "sub/deep/b.txt"),
    *("sub/deep/er/a", "sub/deep/er/keep.txt", "data/1.bin", "data/2.bin", "data/keep/3.bin"),
    *("subway/a", "other/sub/a", "other/sub/b.txt", "file[1].txt", "file1.txt", "foo.bar.txt"),
    *("dir.d/a", "foobar", "sub/foobar", "a+b(c)", "{x}", "é.txt", "other/data/keep/4.bin"),
)
SETS = {
    "names": "a\n*.md\nb.txt\n",
    "comments and blanks": "# a\n\n   \n a \n#hash\n\\#hash\n",
    "a mark of byte order": "\ufeffa\n",
    "folders": "sub/\n/data\n./other/sub\n",
    "any depth": "**/a\n**/*.pyc\n",
    "any depth between": "sub/**/a\n",
    "all below": "sub/**\ndata/keep/**\n",
    "all": "**\n!b.txt\n",
    "taken back": "sub\n!sub/deep/er/keep.txt\n",
    "taken back, the last wins": "*\n!sub\nsub/deep\n!sub/deep/b.txt\n!b.txt\nb.txt\n",
    "taken back before": "!a\na\n",
    "a folder taken back before what it holds is left out": "*/a\n!sub\n",
    "white space after the mark": "*.txt\n!  b.txt\n",
    "question marks": "?.txt\nsub/?\ndata/?.bin\n",
    "classes": "file[0-9].txt\n[b-c].*\nsub/[^a-b]*\n",
    "escapes": "file\\[1\\].txt\n\\*\n\\!bang\n",
    "what looks special": "a+b(c)\n{x}\nfoo.bar.txt\nx^y\nwith space\n",
    "case": "B.TXT\nSUB\n",
    "paths to be cleaned": "sub//deep/../deep/a\n.//a\n../a\n",
    "stars in names": "*.d/a\nfoo*\nsub/foo*r\n*/*/a\n",
    "begins and ends with any": "**bar\ndata**\n",
    "any depth, taken back": "**/*.txt\n!**/keep.txt\n!sub/*.txt\n",
    "letters beyond ASCII": "é.*\n",
    "line ends of Windows": "a\r\nsub/a\r\n",
    "only slashes and dots": "/\n.\n./\n",
}
ON_BUILDKIT = ("taken back, the last wins", "any depth, taken back", "folders")
OWN = {"Dockerfile", ".dockerignore"}
"""What is the build's own business."""

pieces = st.sampled_from(
    [
        "a",
        "sub",
        "deep",
        "er",
        "data",
        "keep",
        "*",
        "**",
        "?",
        "*.txt",
        "b.*",
        "[a-d]*",
        "**b",
        "s**",
    ]
)
patterns = st.builds(
    lambda mark, parts, end: mark + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.lists(pieces, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**"]),
)


class Listener(http.server.BaseHTTPRequestHandler):
    """As much of an engine as the docker command needs in order to send a context."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[list[set[str]]] = []

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"OK")

    def do_POST(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        with tarfile.open(fileobj=io.BytesIO(body)) as context:
            self.files.append({one.name for one in context if one.isfile()} - OWN)
        self._answer(b'{"stream": "thanks"}\n')

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("API-Version", "1.41")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def sent_by_docker(
    tmp_path_factory: pytest.TempPathFactory, miss: Callable[[str], NoReturn]
) -> Iterator[Callable[[str], set[str]]]:
    """The files that the docker command sends to an engine, with these patterns."""
    if shutil.which("docker") is None:
        miss("no docker command here")
    context = write(tmp_path_factory.mktemp("context"), dict.fromkeys(TREE, ""))
    (context / "Dockerfile").write_text("FROM scratch\n")

    def send(patterns: str) -> set[str]:
        (context / ".dockerignore").write_bytes(patterns.encode())
        subprocess.run(
            ["docker", "build", context],
            env=os.environ
            | {"DOCKER_HOST": f"tcp://127.0.0.1:{server.server_port}", "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            timeout=30,
            check=True,
        )
        return Listener.files.pop()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield send
        server.shutdown()
        serving.join()


def kept_of(patterns: str) -> set[str]:
    ignore = Ignore(parse_ignore(patterns))
    return {path for path in TREE if ignore.includes(path)}


@pytest.mark.parametrize("name", SETS)
def test_the_context_holds_what_the_docker_command_sends(
    name: str, sent_by_docker: Callable[[str], set[str]]
):
    assert kept_of(SETS[name]) == sent_by_docker(SETS[name])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(lines=st.lists(patterns, min_size=1, max_size=5))
def test_any_patterns_mean_what_they_mean_to_docker(
    lines: list[str], sent_by_docker: Callable[[str], set[str]]
):
    assert kept_of("\n".join(lines)) == sent_by_docker("\n".join(lines))


@pytest.mark.docker
@pytest.mark.parametrize("name", ON_BUILDKIT)
def test_the_context_holds_what_buildkit_asks_for(
    name: str, tiny_image: str, tmp_path: Path, miss: Callable[[str], NoReturn]
):
    if command_with_buildkit() is None:
        miss("no docker command here builds with BuildKit")
    write(tmp_path, dict.fromkeys(TREE, ""))
    (tmp_path / "Dockerfile").write_text(
        f'FROM {tiny_image}\nCOPY . /c\nRUN cd /c && find . -type f -exec echo "fou""nd:{{}}" ";"\n'
    )
    (tmp_path / ".dockerignore").write_bytes(SETS[name].encode())
    said = docker_build(tmp_path, "--no-cache", builder=BUILDKIT)
    assert kept_of(SETS[name]) == set(re.findall(r"found:\./(.*?)\r?$", said, re.MULTILINE)) - OWN


def test_nothing_is_left_out_without_patterns():
    ignore = Ignore(())
    assert all(ignore.includes(path) for path in TREE)


@pytest.mark.parametrize("pattern", ["[", "a[b", "!", "a\\", "[]a]"])
def test_what_is_no_pattern_is_named(pattern: str):
    with pytest.raises(ItemError) as caught:
        Ignore(parse_ignore(pattern))
    assert caught.value.reason == Reason.JOB_INVALID
    assert repr(pattern) in str(caught.value)


def test_more_patterns_than_anybody_writes_are_refused():
    Ignore(["a"] * MAX_PATTERNS)
    with pytest.raises(ItemError, match="more than 1000 patterns"):
        Ignore(["a"] * (MAX_PATTERNS + 1))


def test_no_pattern_makes_a_look_slow():
    ignore = Ignore(["**/a*a*a*a*a*a*a*a*a*b", "**/a/**/a/**/a/**/a/**/a/**/b"])
    began = time.process_time()
    assert ignore.includes("/".join(["a" * 200] * 10))
    assert ignore.includes("/".join(["a"] * 400))
    assert time.process_time() - began < 1.0


def test_a_name_that_is_no_unicode_can_be_looked_at():
    name = os.fsdecode(b"caf\xe9.txt")
    assert not Ignore(["*.txt"]).includes(name)
    assert Ignore(["*.md"]).includes(name)


def test_many_folders_are_looked_at_in_bounded_memory():
    ignore = Ignore(["**/left-out", "!f1/left-out"])
    kept = [number for number in range(3000) if ignore.includes(f"f{number}/left-out/a")]
    assert kept == [1]
