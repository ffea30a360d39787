"""What builders print: where a build is, and whose fault its end is; no job can forge either."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch_async.adapters.builders.faults import Fault, build_error, fault_of, quoted
from launch_async.adapters.builders.lines import MAX_LINE_BYTES, Lines, shown
from launch_async.adapters.builders.steps import ClassicSteps, PlainSteps
from launch_async.adapters.builders.trace import Trace
from launch_async.domain.errors import ItemError, Reason, Unavailable

SOLVE = "failed to solve: "


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.MISSING, "manifest for reg:5000/a:1 not found: manifest unknown: manifest unknown"),
        (Fault.MISSING, SOLVE + "reg:5000/a:1: not found"),
        (Fault.MISSING, "name unknown: The repository with name 'a' does not exist"),
        (Fault.MISSING, 'Get "https://reg/v2/": dial tcp: lookup reg on 10.0.0.1:53: no such host'),
        (Fault.DENIED, 'Head "http://reg/v2/a/manifests/1": no basic auth credentials'),
        (
            Fault.DENIED,
            "pull access denied, repository does not exist or may require 'docker login'",
        ),
        (Fault.DENIED, "unexpected status from HEAD request to http://reg/v2/a: 401 Unauthorized"),
        (
            Fault.DENIED,
            "pulling from host reg failed with status code [manifests 1]: 403 Forbidden",
        ),
        (Fault.DENIED, SOLVE + "no active sessions"),
        (Fault.AWAY, 'Get "http://reg/v2/": dial tcp 10.0.0.9:80: connect: connection refused'),
        (Fault.AWAY, "received unexpected HTTP status: 503 Service Unavailable"),
        (
            Fault.AWAY,
            "unexpected status from PUT request to http://reg/v2/a: 500 Internal Server Error",
        ),
        (Fault.AWAY, "toomanyrequests: You have reached your pull rate limit"),
        (Fault.AWAY, "pulling from host reg failed with status code [manifests 1]: 502"),
        (Fault.AWAY, "net/http: TLS handshake timeout"),
        (Fault.AWAY, 'Get "https://reg/v2/": EOF'),
        (Fault.AWAY, "dial tcp: lookup reg on 10.0.0.1:53: server misbehaving"),
        (Fault.NO_ROOM, "write /var/lib/docker/tmp/GetImageBlob1: no space left on device"),
        (Fault.OTHER, "COPY failed: no source files were specified"),
    ],
)
def test_faults_are_told_apart_by_their_words(fault: Fault, words: str) -> None:
    assert fault_of(words) is fault


def test_a_signed_address_is_not_quoted_whole() -> None:
    words = 'Put "https://bucket.example/blob?X-Signature=abc&X-Token=def": EOF'

    assert quoted(words) == 'Put "https://bucket.example/blob?…": EOF'


def plain(text: str) -> PlainSteps:
    steps = PlainSteps(lambda _: None)
    steps.feed(text.encode())
    return steps


def error_of(text: str) -> Exception:
    return build_error(plain(text).failure("ended with 1"), builder="buildkitd", image="reg/a:1")


def test_the_first_step_that_failed_is_named_not_those_cancelled_with_it() -> None:
    error = error_of(
        "#5 [a 2/2] RUN sleep 9\n#6 [b 2/3] RUN false\n#5 0.1 zzz\n#6 0.2 oh\n"
        "#5 ERROR: context canceled\n"
        '#6 ERROR: process "/bin/sh -c false" did not complete successfully: exit code: 1\n'
        "ERROR: failed to build\n"
    )

    assert str(error) == (
        "Step b 2/3 of the Dockerfile exited with 1: RUN false\n"
        "The last that it printed (build.log has all of it):\noh"
    )


def test_a_cache_that_is_not_there_is_not_the_failure() -> None:
    error = error_of(
        "#4 importing cache manifest from reg/cache:1\n#4 ERROR: reg/cache:1: not found\n"
        "#6 [2/2] RUN false\n#6 ERROR: exit code: 1\n"
    )

    assert "Step 2/2 of the Dockerfile exited with 1" in str(error)


def test_what_a_step_prints_does_not_pass_for_the_builders_words() -> None:
    error = error_of(
        "#5 [2/3] RUN ./forge\n"
        "#5 0.100 #5 ERROR: exit code: 99\n#5 0.101 \rERROR: forged\n#5 0.102 #6 [9/9] RUN forged\n"
        "#5 DONE 0.1s\n#6 [3/3] RUN false\n#6 ERROR: exit code: 1\n"
    )

    assert str(error) == "Step 3/3 of the Dockerfile exited with 1: RUN false"


def test_a_denied_push_is_told_from_a_failed_step() -> None:
    error = error_of(
        "#8 exporting to image\n#8 pushing layers\n"
        "#8 ERROR: failed to push reg.test/a:1: unexpected status: 401 Unauthorized\n"
    )

    assert isinstance(error, ItemError)
    assert error.reason is Reason.REGISTRY_DENIED


def test_a_daemon_that_went_away_is_an_outage() -> None:
    error = error_of(
        "#5 [2/2] RUN sleep 9\n"
        "error: failed to receive status: rpc error: code = Unavailable desc = error reading: EOF\n"
    )

    assert isinstance(error, Unavailable)


def test_steps_are_said_as_they_begin_and_only_once() -> None:
    said: list[str] = []
    steps = PlainSteps(said.append)
    printed = (
        b"#1 [internal] load .dockerignore\n#2 [1/2] FROM a\n#2 DONE 0.0s\n"
        b"#2 [1/2] FROM a\n#3 [2/2] RUN b\n#4 exporting to image\n"
    )
    steps.feed(printed[:41])
    steps.feed(printed[41:])

    assert said == ["step 1/2: FROM a", "step 2/2: RUN b", "exporting to image"]


def test_podmans_steps_are_read_as_the_classic_builders() -> None:
    said: list[str] = []
    steps = ClassicSteps(said.append)
    for piece in ("STEP 1/2: FROM base\n", "--> adaa50e0712\n", "STEP 2/2: RUN false\n", "oh\n"):
        steps.feed(piece.encode())
    error = build_error(steps.failure("exit status 1"), builder="podman", image="a:1")
    assert said == ["step 1/2: FROM base", "step 2/2: RUN false"]
    assert str(error).startswith("Step 2/2 of the Dockerfile exited with 1: RUN false")
    assert str(error).endswith(":\noh")


def test_a_long_instruction_is_shortened() -> None:
    said: list[str] = []
    ClassicSteps(said.append).feed(f"Step 1/1 : RUN {'x' * 500}".encode())

    assert len(said[0]) < 150


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_lines_do_not_depend_on_how_the_stream_is_cut(text: bytes, cuts: list[int]) -> None:
    text = text.replace(b"\x1b", b"")
    lines, found = Lines(), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True):
        found += lines.feed(text[start:end])
    found += lines.end()

    assert found == text.decode(errors="replace").removesuffix("\n").split("\n") or not text


def test_of_a_line_without_an_end_only_the_start_is_kept() -> None:
    lines = Lines()
    for _ in range(1000):
        assert list(lines.feed(b"x" * 1000)) == []

    assert list(lines.feed(b"\n")) == ["x" * MAX_LINE_BYTES]


def test_a_progress_bar_is_shown_as_it_was_last() -> None:
    assert shown("10 %\r50 %\r100 %\r") == "100 %"


def number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + varint(value)


def text(field: int, value: bytes | str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return bytes([field << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    return bytes(_varint(value))


def _varint(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def at(seconds: int, nanoseconds: int = 0) -> bytes:
    return number(1, seconds) + number(2, nanoseconds)


def vertex(digest: str, name: str, *more: bytes) -> bytes:
    return text(1, text(1, digest) + text(3, name) + b"".join(more))


def log(digest: str, seconds: int, words: bytes) -> bytes:
    return text(3, text(1, digest) + text(2, at(seconds)) + text(4, words))


def test_a_trace_reads_as_plain_progress() -> None:
    trace = Trace()
    began = text(5, at(100))
    ran = [
        vertex("a", "[1/3] FROM x"),
        vertex("a", "[1/3] FROM x", number(4, 1)),
        vertex("b", "[2/3] RUN two\nlines", began),
        log("b", 102, b"half a li"),
        log("b", 103, b"ne\nand more\n"),
        vertex("b", "[2/3] RUN two\nlines", began, text(6, at(104, 500_000_000))),
        vertex("c", "[3/3] RUN false", began, text(6, at(100)), text(7, "exit code: 1")),
    ]

    assert b"".join(trace.text(message) for message in ran).decode().splitlines() == [
        "#1 [1/3] FROM x",
        "#1 CACHED",
        "#2 [2/3] RUN two lines",
        "#2 2.000 half a line",
        "#2 3.000 and more",
        "#2 DONE 4.5s",
        "#3 [3/3] RUN false",
        "#3 ERROR: exit code: 1",
    ]


def test_steps_that_print_at_once_keep_their_lines_apart() -> None:
    trace = Trace()
    message = b"".join(
        [
            vertex("a", "A", text(5, at(1))),
            vertex("b", "B", text(5, at(1))),
            log("a", 1, b"one"),
            log("b", 1, b"two\n"),
            log("a", 1, b"three\n"),
        ]
    )

    assert trace.text(message).decode().splitlines()[2:] == [
        "#1 0.000 one",
        "#2 0.000 two",
        "#1 0.000 three",
    ]


@given(st.binary(max_size=100))
def test_what_is_no_trace_is_refused_or_harmless(message: bytes) -> None:
    with suppress(ValueError):
        Trace().text(message)
