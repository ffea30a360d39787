"""Which remotes and names git is given."""

import pytest

from launch_async.domain.errors import ItemError, Reason
from launch_async.domain.git import (
    GitLogin,
    GitRemote,
    checked_ref,
    is_commit,
    masked,
    split_login,
)


@pytest.mark.parametrize(
    ("text", "url", "host"),
    [
        ("https://h.example.com/a/b.git", "https://h.example.com/a/b.git", "h.example.com"),
        ("HTTPS://H.com:8443/a", "https://H.com:8443/a", "h.com:8443"),
        ("https://[::1]:8443/a", "https://[::1]:8443/a", "[::1]:8443"),
        ("https://h/a%20b?c=d", "https://h/a%20b?c=d", "h"),
        (" https://h/a\n", "https://h/a", "h"),
        ("ssh://git@h.com:22/a.git", "ssh://git@h.com:22/a.git", "h.com"),
        ("ssh://h/~me/a", "ssh://h/~me/a", "h"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git", "github.com"),
        ("my-user+x@h:a", "my-user+x@h:a", "h"),
    ],
)
def test_remotes_that_git_gets(text: str, url: str, host: str):
    remote = GitRemote.parse(text)
    assert (remote.url, remote.host) == (url, host)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-u",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=x@h:a",
        "file:///etc",
        "/etc",
        "../up",
        "ext::sh -c touch% /tmp/x",
        "fd::3",
        "git://h/a",
        "ftp://h/a",
        "git+ssh://h/a",
        "https::https://h/a",
        "https://",
        "https:///a",
        "https://-h/a",
        "https://h",
        "https://h/a b",
        "https://h/a\nb",
        "https://h\n/a",
        "https://h/\x00",
        "https://h:port/a",
        "https://h/a\x7f",
        "ssh://-oProxyCommand=x/a",
        "ssh://-h/a",
        "ssh://git@-h/a",
        "ssh://git:planted@h/a",
        "ssh://h",
        "git@-h:a",
        "git@h:-a",
        "git@h:",
        "h:a",
        "git@h /a:b",
        "git@h:a\rb",
    ],
)
def test_remotes_that_git_must_not_get(text: str):
    with pytest.raises(ItemError, match=r"is refused: write https://HOST/PATH") as caught:
        GitRemote.parse(text)
    assert caught.value.reason is Reason.JOB_INVALID
    assert "planted" not in str(caught.value)


def test_http_is_for_those_who_allow_it():
    with pytest.raises(ItemError, match="use https://"):
        GitRemote.parse("http://h/a")
    assert GitRemote.parse("http://h/a", allow_http=True).server == "http://h"


@pytest.mark.parametrize(
    ("text", "login"),
    [
        ("https://h/a", None),
        ("https://me@h/a", None),
        ("https://me:@h/a", None),
        ("https://me:planted@h/a", "me:planted"),
        ("https://me:p@x:y@h/a", "me:p@x:y"),
        ("https://m%40e:p%2Fq@h/a", "m@e:p/q"),
    ],
)
def test_a_login_is_taken_out_of_a_remote(text: str, login: str | None):
    remote, found = split_login(text)
    assert remote == "https://h/a"
    assert (found.reveal() if found else None) == login
    parsed = GitRemote.parse(text)
    assert (parsed.url, parsed.login) == (remote, found)
    assert "planted" not in repr(parsed)


@pytest.mark.parametrize("text", ["https://me:pl/anted@h/a", "https://me:planted@-h/a"])
def test_a_remote_is_refused_without_its_password(text: str):
    with pytest.raises(ItemError, match=r"'https://\*\*\*@") as caught:
        GitRemote.parse(text)
    assert "anted" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "fatal: https://me:pw@h/a and https://token@g/b",
            "fatal: https://***@h/a and https://***@g/b",
        ),
        ("ssh://git@h/a", "ssh://git@h/a"),
        ("x://git:pw@h/a", "x://git:***@h/a"),
        ("mail me@h.com", "mail me@h.com"),
    ],
)
def test_logins_are_masked_in_any_text(text: str, shown: str):
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text", ["main", "HEAD", "v1.0", "feature/a-b", "refs/heads/x", "a@b", "0" * 40]
)
def test_names_that_git_gets(text: str):
    assert checked_ref(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "-f", "--upload-pack=x", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[b"),
        *("a\\b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "@{u}", "@"),
        *("a\nb", "a\x00", "n" * 300),
    ],
)
def test_names_that_git_must_not_get(text: str):
    with pytest.raises(ItemError, match="is no commit, branch or tag") as caught:
        checked_ref(text)
    assert caught.value.reason is Reason.JOB_INVALID


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a" * 40, True), ("a" * 64, True), ("A" * 40, False), ("a" * 39, False), ("g" * 40, False)],
)
def test_a_commit_is_a_whole_hash(text: str, *, is_one: bool):
    assert is_commit(text) is is_one


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "https://h", "password_env": "X"},
        {"host": "h\nx", "password_env": "X"},
        {"host": "h"},
        {"host": "h", "password_env": "X", "password_file": "/x"},
    ],
)
def test_a_login_that_says_too_little_or_too_much_is_refused(fields: dict[str, str]):
    with pytest.raises(ValueError, match=r"must be HOST|needs either password_file or"):
        GitLogin(username="me", **fields)
