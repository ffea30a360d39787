"""Which images a Dockerfile builds upon, in all the ways in which one can be written."""

import pytest

from launch_async.images.dockerfile import bases, instructions

CASES = {
    "one": ("FROM python:3.11-slim\nRUN true\n", ["python:3.11-slim"]),
    "any case, indented": ("  from python:3.11 as X\nFROM x\n", ["python:3.11"]),
    "stages": (
        "FROM golang:1.22 AS build\nFROM build AS test\nFROM debian:12\nCOPY --from=build /a /a\n",
        ["golang:1.22", "debian:12"],
    ),
    "a platform": ("FROM --platform=$BUILDPLATFORM alpine:3 AS a\n", ["alpine:3"]),
    "scratch": ("FROM scratch\n", []),
    "twice": ("FROM a:1 AS x\nFROM a:1\n", ["a:1"]),
    "a digest and a port": (
        f"FROM host:5000/team/a:1@sha256:{'0' * 64}\n",
        [f"host:5000/team/a:1@sha256:{'0' * 64}"],
    ),
    "arguments": (
        "ARG TAG=3.11\nARG BASE=python:${TAG}-slim OTHER='debian:12'\nFROM $BASE\nFROM ${OTHER}\n",
        ["python:3.11-slim", "debian:12"],
    ),
    "an argument's default in place": (
        "ARG A\nFROM ${A:-debian:12}\nFROM python${B-:3}\nFROM a${A:+:1}\n",
        ["debian:12", "python:3", "a"],
    ),
    "a default that is an argument": ("ARG B=debian:12\nFROM ${A:-${B}}\n", ["debian:12"]),
    "an argument without a value": ("ARG A\nFROM $A\nFROM img-$TARGETARCH\nFROM b:1\n", ["b:1"]),
    "an argument of a stage": ("FROM a:1\nARG B=2\nFROM b:$B\n", ["a:1"]),
    "quotes": ('ARG A="debian:12"\nFROM "$A"\n', ["debian:12"]),
    "joined lines": ("FROM \\\n  # why\n\n  debian:12 \\\n  AS x\nFROM \\\n\tx\n", ["debian:12"]),
    "another escape": (
        "# escape=`\nFROM `\n  debian:12\nRUN dir c:\\\nFROM b:1\n",
        ["debian:12", "b:1"],
    ),
    "directives": ("#syntax=docker/dockerfile:1\n# escape = \\\nFROM a:1 \\\n AS b\n", ["a:1"]),
    "no directive after a comment": ("# hello\n# escape=`\nFROM a:1 \\\n AS b\nFROM b\n", ["a:1"]),
    "an escaped escape": ("FROM a:1\nRUN echo \\\\\nFROM b:1\n", ["a:1", "b:1"]),
    "comments": ("# FROM x:1\nFROM a:1\n  # FROM y:1\nRUN true # FROM z:1\n", ["a:1"]),
    "a heredoc": (
        "FROM a:1\nRUN <<EOF\nFROM x:1\nEOF\nFROM b:1\n",
        ["a:1", "b:1"],
    ),
    "heredocs of two files": (
        'FROM a:1\nCOPY <<one <<-"two" /x/\nFROM x:1\none\nFROM y:1\n\ttwo\nFROM b:1\n',
        ["a:1", "b:1"],
    ),
    "a heredoc that runs on": (
        "FROM a:1\nRUN python3 <<'END' > /x\nfrom os import path\nEND\nFROM b:1\n",
        ["a:1", "b:1"],
    ),
    "no heredocs": (
        "FROM a:1\nRUN cat <<<word; echo '<<EOF' $((1<<2))\nENV X=<<EOF\nRUN x <<NEVER\nFROM b:1\n",
        ["a:1", "b:1"],
    ),
    "a heredoc of later": ("FROM a:1\nONBUILD RUN <<E\nFROM x:1\nE\nFROM b:1\n", ["a:1", "b:1"]),
    "copied from": (
        "FROM a:1 AS s\nCOPY --chown=1 --from=b:1 /a /\nCOPY --from=0 /a /\nCOPY --from=S /a /\n",
        ["a:1", "b:1"],
    ),
    "mounted from": (
        "FROM a:1\nRUN --mount=type=bind,from=b:1,target=/b --mount=type=cache,target=/c true\n",
        ["a:1", "b:1"],
    ),
    "line ends of Windows": ("\ufeffFROM a:1 AS x\r\nFROM \\\r\n x\r\n", ["a:1"]),
    "no images": ("FROM Not/An/Image\nFROM\nFROM a b c d\n", ["a"]),
    "nothing": ("", []),
}


@pytest.mark.parametrize("name", CASES)
def test_the_images_that_a_dockerfile_builds_upon(name: str):
    text, expected = CASES[name]
    assert list(bases(text)) == expected


def test_a_builds_arguments_replace_the_defaults_of_what_is_declared():
    text = "ARG BASE=debian:12\nFROM $BASE\nFROM a:$OTHER\n"
    assert bases(text, {"BASE": "debian:13", "OTHER": "1"}) == ("debian:13",)


def test_instructions_come_with_their_lines_joined():
    text = "from a:1\n\nRUN one && \\\n  # a comment\n  two\nCMD\n"
    found = [(one.name, " ".join(one.rest.split())) for one in instructions(text)]
    assert found == [("FROM", "a:1"), ("RUN", "one && two"), ("CMD", "")]
