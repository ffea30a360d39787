"""What git says when it fails, as it was seen on large hosts and full disks, and who must act."""

from pathlib import Path

import pytest

from launch_async.adapters.sources.git_faults import fault_of
from launch_async.adapters.sources.git_process import GitFailed
from launch_async.domain.errors import ItemError, Reason, Unavailable

GITHUB_SSH = """\
ERROR: Repository not found.
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists."""
GITLAB_SSH = """\
remote:
remote: ========================================================================
remote: ERROR: The project you were looking for could not be found or you don't have permission.
fatal: Could not read from remote repository."""
NO_TERMINAL = """\
fatal: could not read Username for 'https://github.com': terminal prompts disabled"""
OLD_TOKEN = """\
remote: Invalid username or token. Password authentication is not supported for Git operations.
fatal: Authentication failed for 'https://github.com/a/b/'"""
NO_KEY = """\
git@github.com: Permission denied (publickey).
fatal: Could not read from remote repository."""
CUT_OFF = """\
error: RPC failed; curl 92 HTTP/2 stream 5 was not closed cleanly: CANCEL (err 8)
fetch-pack: unexpected disconnect while reading sideband packet
fatal: early EOF
fatal: fetch-pack: invalid index-pack output"""
FULL_AT_CHECKOUT = """\
error: unable to write file model.bin
fatal: sha1 file '/s/.git/index.lock' write error. Out of diskspace"""
FULL_AT_FETCH = """\
fatal: write error: No space left on device
fatal: fetch-pack: invalid index-pack output"""


def fault(text: str) -> Exception:
    return fault_of(
        GitFailed(text.splitlines()), remote="https://h/r.git", wanted="c0ffee", folder=Path("/s")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GITHUB_SSH, "is not there, or the agent's login may not see it"),
        (GITLAB_SSH, "is not there, or the agent's login may not see it"),
        ("remote: Repository not found.\nfatal: repository 'x' not found", "is not there"),
        (NO_TERMINAL, "refused the agent's login"),
        (OLD_TOKEN, "refused the agent's login"),
        (NO_KEY, "refused the agent's login"),
        ("error: RPC failed; HTTP 403\nThe requested URL returned error: 403", "refused the agent"),
        ("fatal: unable to access 'x': SSL certificate problem: expired", "does not trust"),
        ("fatal: x: server certificate verification failed. CAfile: none", "does not trust"),
        ("Host key verification failed.\nfatal: Could not read from remote", "ssh host key"),
        ("error: cannot run ssh: No such file or directory", "ssh, which is not installed"),
        ("fatal: remote error: upload-pack: not our ref c0ffee", "no commit, branch or tag c0ffee"),
        ("fatal: couldn't find remote ref x", "no commit, branch or tag c0ffee"),
        (FULL_AT_CHECKOUT, r"no room to fetch the job's code \(/s\)"),
        (FULL_AT_FETCH, r"no room to fetch the job's code \(/s\)"),
        ("fatal: something new\nof git's", "could not be fetched.\nfatal: something new\nof git's"),
    ],
)
def test_what_a_person_must_mend_ends_the_item(text: str, said: str):
    found = fault(text)
    assert isinstance(found, ItemError)
    assert found.reason is Reason.SOURCE_UNAVAILABLE
    with pytest.raises(ItemError, match=said):
        raise found


@pytest.mark.parametrize(
    "text",
    [
        CUT_OFF,
        "fatal: unable to access 'https://h/': Could not resolve host: h",
        "fatal: unable to access 'https://h/': Failed to connect to h port 443: Connection refused",
        "fatal: unable to access 'https://h/': The requested URL returned error: 502",
        "ssh: connect to host h port 22: Connection timed out\nfatal: Could not read from remote",
        "kex_exchange_identification: Connection closed by remote host",
        "fatal: the remote end hung up unexpectedly",
    ],
)
def test_what_may_pass_is_an_outage(text: str):
    assert isinstance(fault(text), Unavailable)
