"""Nothing that a job says adds an instruction to its Dockerfile, or changes one."""

import functools
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_builds import BUILDKIT, CLASSIC, BuiltImage, command_with_buildkit, order_for, write

from launch_async.domain.errors import ItemError
from launch_async.images.dockerfile import instructions
from launch_async.images.quoting import MAX_CHARACTERS, assignment, exec_form, user_name
from launch_async.images.recipe import recipe_of

NASTY = (
    "plain",
    "two words",
    'a"b',
    "it's",
    "$HOME ${PATH} $(id)",
    "`id`",
    "back\\slash\\",
    "#comment",
    "<<EOF",
    "\\",
    "\\\\",
    '"]\nRUN touch /pwned\n#["',
    "é\u2028\u0085\x0b\x1b[0m\t\r\n",
    "\U0001f600",
    "import os\nprint('two lines')\n",
    "",
)
LISTS = (None, "numpy\n", "./pkg\n", "numpy\n./pkg\n")
"""Each makes a Dockerfile of another shape."""

hostile = st.text(
    st.one_of(st.characters(), st.sampled_from("\n\r\\\"'$`#<>[]{}&|; \t\x00\u2028\u0085")),
    max_size=40,
)


def names_of(listed: str | None, **changes: Any) -> list[str]:
    """The instructions that are generated for this list of requirements."""
    with tempfile.TemporaryDirectory() as folder:
        if listed is not None:
            Path(folder, "requirements.txt").write_text(listed, errors="replace")
        recipe = recipe_of(order_for(Path(folder), **changes))
    return [one.name for one in instructions(recipe.dockerfile)]


def block(image: str | None, *, accelerated: bool) -> dict[str, Any]:
    return {"accelerator": {"base_image": image}} if accelerated else {"base_image": image}


@functools.cache
def harmless(*, is_based: bool, accelerated: bool) -> list[list[str]]:
    """The instructions for jobs that mean well."""
    builder = block("debian:12" if is_based else None, accelerated=accelerated)
    return [names_of(one, builder=builder) for one in LISTS]


@given(words=st.lists(hostile, min_size=1, max_size=5))
def test_an_entry_point_is_one_line_that_says_what_it_was(words: list[str]):
    try:
        text = exec_form(words)
    except ItemError:
        assert any(set(word) & {"\0", *map(chr, range(0xD800, 0xE000))} for word in words)
        return
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == words


@given(value=hostile)
def test_a_value_stays_one_quoted_word(value: str):
    try:
        text = assignment("NAME", value)
    except ItemError:
        assert not value.isprintable()
        return
    quoted = re.fullmatch(r'NAME="((?:[^"\\$]|\\["\\$])*)"', text)
    assert quoted is not None
    assert re.sub(r"\\(.)", r"\1", quoted[1]) == value
    assert "\n" not in text


@pytest.mark.parametrize("words", [[], ["a\0b"], ["\ud800"], ["x" * MAX_CHARACTERS]])
def test_what_no_program_can_get_is_refused(words: list[str]):
    with pytest.raises(ItemError, match="entry point"):
        exec_form(words)


@pytest.mark.parametrize("name", ["", "A B", "1A", "A=B", "A\nRUN x"])
def test_only_names_are_set(name: str):
    with pytest.raises(ItemError, match="cannot be set"):
        assignment(name, "x")


@pytest.mark.parametrize(
    "name", ["", "a b", "Launch", "a\nUSER 0", "../x", "-u0", "a;id", "x" * 40]
)
def test_only_plain_user_names_are_made(name: str):
    with pytest.raises(ItemError, match="user name"):
        user_name(name)


@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(hostile, min_size=1, max_size=3),
    base=st.one_of(st.none(), st.just("debian:12"), hostile.map(lambda text: f"a:1{text}")),
    runtime=st.one_of(st.none(), hostile, hostile.map(lambda text: f"3.11{text}")),
    listed=st.one_of(st.none(), hostile),
    accelerated=st.booleans(),
)
def test_no_job_adds_an_instruction(
    words: list[str],
    base: str | None,
    runtime: str | None,
    listed: str | None,
    accelerated: bool,
):
    try:
        found = names_of(
            listed,
            entrypoint=tuple(words),
            builder=block(base, accelerated=accelerated),
            runtime=runtime,
        )
    except ItemError:
        return
    assert found in harmless(is_based=bool(base), accelerated=accelerated)


@pytest.mark.docker
@pytest.mark.parametrize("builder", [CLASSIC, BUILDKIT])
def test_the_engine_reads_what_was_quoted(builder: str, tiny_image: str, tmp_path: Path, miss):
    if builder == BUILDKIT and command_with_buildkit() is None:
        miss("no docker command here builds with BuildKit")
    values = {f"V{number}": word for number, word in enumerate(NASTY) if word.isprintable()}
    assigned = " ".join(assignment(name, value) for name, value in values.items())
    lines = [
        f"FROM {tiny_image}",
        f"ENV {assigned}",
        f"LABEL {assigned}",
        f"ENTRYPOINT {exec_form(NASTY)}",
    ]
    write(tmp_path, {"Dockerfile": "\n".join(lines) + "\n"})
    with BuiltImage(tmp_path / "Dockerfile", builder) as image:
        config = image.config
    assert config["Entrypoint"] == list(NASTY)
    assert {f"{name}={value}" for name, value in values.items()} <= set(config["Env"])
    assert values.items() <= config["Labels"].items()
