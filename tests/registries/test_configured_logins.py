"""Logins from the agent's settings, and several sources in a row."""

from pathlib import Path

import msgspec
import pytest
from known_logins import PLANTED, Logins, everything_said

from launch_async.adapters.registries.chain import LoginChain
from launch_async.adapters.registries.static import StaticLogin, StaticLogins
from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.image import ImageRef

pytestmark = pytest.mark.anyio

APP = ImageRef.parse("registry.example.com:5000/team/app:1")


def from_env(host: str = APP.host, repository: str = "", username: str = "agent") -> StaticLogin:
    return StaticLogin(host=host, repository=repository, username=username, password_env="WORD")


async def test_a_password_is_read_from_a_variable_at_each_use():
    environ = {"WORD": PLANTED}
    logins = StaticLogins([from_env()], environ)
    login = await logins.login(APP)
    assert login is not None
    assert (login.username, login.password.reveal()) == ("agent", PLANTED)
    assert PLANTED not in repr(login) + repr(logins)
    environ["WORD"] = "rotated"
    again = await logins.login(APP)
    assert again is not None
    assert again.password.reveal() == "rotated"


async def test_a_password_is_read_from_a_file_at_each_use(tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{PLANTED}\n")
    one = StaticLogin(host=APP.host, username="agent", password_file=str(file))
    logins = StaticLogins([one])
    for password in (PLANTED, " with spaces "):
        file.write_text(f"{password}\n")
        login = await logins.login(APP)
        assert login is not None
        assert login.password.reveal() == password


async def test_a_file_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "password").write_text(PLANTED)
    one = StaticLogin(host=APP.host, username="agent", password_file="~/password")
    assert await StaticLogins([one]).login(APP) is not None


@pytest.mark.parametrize("repository", ["", "team", "team/", "team/app"])
async def test_a_login_is_for_its_repositories(repository):
    assert await StaticLogins([from_env(repository=repository)], {"WORD": "x"}).login(APP)


@pytest.mark.parametrize(
    "one",
    [
        from_env(host="registry.example.com"),
        from_env(host="other.example.com:5000"),
        from_env(repository="tea"),
        from_env(repository="team/app/x"),
        from_env(repository="other"),
    ],
)
async def test_another_repositorys_login_is_not_taken(one):
    assert await StaticLogins([one], {"WORD": "x"}).login(APP) is None


async def test_the_login_that_says_most_counts():
    every = [from_env(username="all"), from_env(repository="team", username="team")]
    login = await StaticLogins(every, {"WORD": "x"}).login(APP)
    assert login is not None
    assert login.username == "team"


@pytest.mark.parametrize("environ", [{}, {"WORD": ""}])
async def test_a_variable_without_a_password_is_named(environ):
    with pytest.raises(ItemError, match="the variable WORD is empty") as caught:
        await StaticLogins([from_env()], environ).login(APP)
    assert caught.value.reason is Reason.REGISTRY_DENIED
    assert APP.host in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff" + PLANTED.encode()])
async def test_a_file_without_a_password_is_named_and_not_shown(tmp_path: Path, content):
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    one = StaticLogin(host=APP.host, username="agent", password_file=str(file))
    with pytest.raises(ItemError) as caught:
        await StaticLogins([one]).login(APP)
    assert str(file) in str(caught.value)
    assert PLANTED not in everything_said(caught.value)


@pytest.mark.parametrize("more", [{}, {"password_env": "A", "password_file": "b"}])
def test_a_password_has_exactly_one_place(more):
    with pytest.raises(msgspec.ValidationError, match="either password_env or password_file"):
        msgspec.convert({"host": "h", "username": "u", **more}, StaticLogin)


async def test_the_first_source_that_knows_is_the_last_that_is_asked():
    none, one, two = Logins(), Logins("one"), Logins("two")
    login = await LoginChain([none, one, two]).login(APP)
    assert login is not None
    assert login.username == "one"
    assert [len(source.asked) for source in (none, one, two)] == [1, 1, 0]
    assert await LoginChain([none]).login(APP) is None
    assert await LoginChain([]).login(APP) is None
