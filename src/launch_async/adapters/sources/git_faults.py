"""Why git failed, from what it said, as the error for whoever must act.

The texts are those of git 2.30 to 2.50 in the C locale, of curl's TLS libraries, of OpenSSH and of
the large hosts' servers.
"""

import re
from pathlib import Path

from launch_async.adapters.sources.disk import no_room
from launch_async.adapters.sources.git_process import GitFailed
from launch_async.domain.errors import ItemError, LaunchError, Reason, Unavailable
from launch_async.domain.git import masked

_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|Out of diskspace")
_PROTOCOL = re.compile(r"transport '([^']+)' not allowed")
_NO_SUCH_ID = re.compile(r"not our ref|unadvertised object|remote ref .* not found|find remote ref")
_NOT_BY_ID = re.compile(
    r"not allow request for unadvertised object|does not support shallow|not support --depth"
    r"|Direct fetching of that commit failed"
)
_CERTIFICATE = re.compile(
    r"certificate verif|SSL certificate problem|unable to get local issuer|no alternative certif"
)
_HOST_KEY = re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED")
_NO_SSH = re.compile(r"cannot run ssh")
_AUTHENTICATION = re.compile(
    r"could not read (?:Username|Password)|Authentication failed|Permission denied"
    r"|returned error: 40[13]|HTTP Basic: Access denied|Invalid username or"
    r"|Too many authentication failures"
)
_NOT_FOUND = re.compile(
    r"[Rr]epository .*not found|does not appear to be a git repository|returned error: 404"
    r"|not a git repository|not valid: is this a git repository|could not be found"
)
_NETWORK = re.compile(
    r"Could not resolve (?:host|proxy)|Failed to connect|Couldn't connect"
    r"|Connection (?:refused|reset)|timed out|Network is unreachable|No route to host"
    r"|Temporary failure in name resolution"
    r"|returned error: (?:429|5\d\d)|early EOF|RPC failed|hung up unexpectedly"
    r"|Connection closed|kex_exchange_identification|Empty reply from server"
    r"|unexpected disconnect|Operation too slow|TLS connection was non-properly terminated"
    r"|SSL_ERROR_SYSCALL|Recv failure|unexpected eof|Received HTTP code 5\d\d from proxy"
)


def cannot_give_single_commits(error: GitFailed) -> bool:
    """Whether the server gives branches and tags only, as old and plain http servers do."""
    return _NOT_BY_ID.search(error.text) is not None


def fault_of(error: GitFailed, *, remote: str, wanted: str, folder: Path) -> LaunchError:
    """The error to raise when `wanted` could not be fetched from the remote into the folder."""
    text = error.text
    remote = masked(remote)
    if _NO_ROOM.search(text):
        return no_room(folder)
    protocol = _PROTOCOL.search(text)
    if protocol is not None:
        return _invalid(
            f"{remote} has a submodule or a redirect over {protocol[1]!r}, which is refused:"
            " only https and ssh are fetched from"
        )
    if _NO_SUCH_ID.search(text):
        return unknown_commit(remote, wanted)
    for pattern, cause in _CAUSES.items():
        if pattern.search(text):
            return _unavailable_source(f"{remote} {cause}", error)
    if _NETWORK.search(text):
        return Unavailable(f"{remote} cannot be reached: {_last(text)}")
    return _unavailable_source(f"{remote} could not be fetched", error)


def unknown_commit(remote: str, wanted: str) -> ItemError:
    """The remote answers, but has no such thing."""
    return ItemError(
        f"{masked(remote)} has no commit, branch or tag {wanted}; push it, or create the job again",
        reason=Reason.SOURCE_UNAVAILABLE,
    )


_CAUSES = {
    _CERTIFICATE: "shows a certificate that the agent's machine does not trust; name a file with"
    " its authority in `agent.git.ca_file`",
    _HOST_KEY: "has an ssh host key that the agent does not know; add it to the file"
    " `agent.git.known_hosts_file` or to the known_hosts of the agent's user",
    _NO_SSH: "is reached over ssh, which is not installed where the agent runs; install it there",
    _NOT_FOUND: "is not there, or the agent's login may not see it; check the remote and the"
    " agent's git credentials",
    _AUTHENTICATION: "refused the agent's login; give the agent git credentials or an ssh key that"
    " may read it",
}
"""By what git says; the first that fits."""


def _invalid(message: str) -> ItemError:
    return ItemError(message, reason=Reason.JOB_INVALID)


def _unavailable_source(message: str, error: GitFailed) -> ItemError:
    return ItemError(f"{message}.\n{error}", reason=Reason.SOURCE_UNAVAILABLE)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "git said nothing"
