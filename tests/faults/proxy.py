"""A proxy that stands between the agent and a service, and breaks what it is told to break.

```
agent --- Proxy --- server, Docker engine
           |
           hold    keep a request, or its answer, until released
           lose    let it count, then hang up without a word
           answer  say something else instead
           slow    think first
           down    refuse connections and cut those that are open
```

Requests are known by a text in their head or body: a GraphQL operation's name, a path. Each
connection carries one request, so that nothing is broken but what is meant.
"""

import json
import re
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

HEAD_END = b"\r\n\r\n"
HOLD_SECONDS = 60.0
PIECE = 64 * 1024
_OPERATION = re.compile(rb'"query"\s*:\s*"\s*(?:\\n|\s)*(?:query|mutation)\s+(\w+)')


class Fault:
    """One thing that goes wrong, for requests that have `words` in them."""

    def __init__(
        self,
        words: str,
        *,
        times: int | None = None,
        before: Callable[[], object] | None = None,
        instead: bytes | None = None,
        after: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """`after` says what goes out instead of the answer."""
        self.before, self.instead, self.after = before, instead, after
        self.hits = 0
        self.seen = threading.Event()
        """At its first hit; with `after`, once the answer is there."""
        self._words = words.encode()
        self._times = times
        self._over = threading.Event()
        self._lock = threading.Lock()

    def wants(self, request: bytes) -> bool:
        with self._lock:
            if self._over.is_set() or self._words not in request:
                return False
            if self._times is not None and self.hits >= self._times:
                return False
            self.hits += 1
        return True

    def spare_others(self) -> None:
        """Go on with those that were hit, and hit nobody else."""
        with self._lock:
            self._times = self.hits

    def release(self) -> None:
        """From now on all is well, also for those who wait."""
        self._over.set()

    def wait_until_released(self) -> None:
        self._over.wait(HOLD_SECONDS)

    def wait(self, seconds: float = 60.0) -> None:
        assert self.seen.wait(seconds), f"nobody asked for {self._words.decode()}"


class Proxy:
    """Serves on a loopback port for the length of `running()`."""

    def __init__(self, upstream: tuple[str, int] | Path) -> None:
        self.operations: list[str] = []
        """Of each request that came, in order: its GraphQL operation, else its method and path."""
        self._upstream = upstream
        self._faults: list[Fault] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def under_way(self) -> int:
        """Connections that are open."""
        return len(self._open)

    @contextmanager
    def running(self) -> Iterator[Self]:
        self._listen()
        try:
            yield self
        finally:
            for fault in self._faults:
                fault.release()
            self._cut()

    @contextmanager
    def down(self) -> Generator[None, None, None]:
        """Nobody listens while the block lasts."""
        self._cut()
        try:
            yield
        finally:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._listen()

    @contextmanager
    def hold(self, words: str, *, answered: bool = False) -> Iterator[Fault]:
        """Keep requests back, with `answered` their answers, until released or the block ends."""
        fault = Fault(words)

        def wait(answer: bytes = b"") -> bytes:
            fault.seen.set()
            fault.wait_until_released()
            return answer

        if answered:
            fault.after = wait
        else:
            fault.before = wait
        with self._broken(fault):
            yield fault

    @contextmanager
    def lose(self, words: str, *, times: int | None = None) -> Iterator[Fault]:
        """Requests count, and their answers are lost."""
        fault = Fault(words, times=times, after=lambda _: b"")
        with self._broken(fault):
            yield fault

    @contextmanager
    def answer(
        self, words: str, status: int, *, body: str = "{}", head: Mapping[str, str] | None = None
    ) -> Iterator[Fault]:
        """Say this instead; the service hears nothing of it."""
        lines = [f"HTTP/1.1 {status} Planned", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in (head or {}).items()]
        lines += [f"Content-Length: {len(body.encode())}", "Connection: close"]
        said = "\r\n".join(lines).encode() + HEAD_END + body.encode()
        with self._broken(Fault(words, instead=said)) as fault:
            yield fault

    @contextmanager
    def edit(self, words: str, change: Callable[[Any], object]) -> Iterator[Fault]:
        """Let `change` alter the JSON of answers."""

        def altered(answer: bytes) -> bytes:
            head, _, body = answer.partition(HEAD_END)
            content = json.loads(body)
            change(content)
            said = json.dumps(content).encode()
            length = b"\r\nContent-Length: %d" % len(said)
            return re.sub(rb"(?i)\r\ncontent-length: *\d+", length, head) + HEAD_END + said

        with self._broken(Fault(words, after=altered)) as fault:
            yield fault

    @contextmanager
    def slow(self, words: str, seconds: float) -> Iterator[Fault]:
        """Think for so long before each such request is passed on."""
        fault = Fault(words)
        fault.before = partial(fault._over.wait, seconds)
        with self._broken(fault):
            yield fault

    @contextmanager
    def _broken(self, fault: Fault) -> Iterator[Fault]:
        self._faults.append(fault)
        try:
            yield fault
        finally:
            fault.release()
            self._faults.remove(fault)

    def _listen(self) -> None:
        listener = self._listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _cut(self) -> None:
        # A close alone would leave the thread in accept(), and the port taken.
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._kept(client), suppress(OSError):
            request = _read_request(client)
            if request:
                self._pass_on(request, client)

    def _pass_on(self, request: bytes, client: socket.socket) -> None:
        self.operations.append(_name_of(request))
        fault = next((one for one in list(self._faults) if one.wants(request)), None)
        if fault is None:
            self._forward(request, client)
            return
        if fault.before is not None:
            fault.before()
            if _hung_up(client):
                return  # its sender died meanwhile: it was never sent
        if fault.instead is not None:
            fault.seen.set()
            client.sendall(fault.instead)
        elif fault.after is None:
            fault.seen.set()
            self._forward(request, client)
        else:
            self._forward_late(request, client, fault.after)
            fault.seen.set()

    def _forward(self, request: bytes, client: socket.socket) -> None:
        with self._kept(self._connect()) as upstream:
            upstream.sendall(request)
            while piece := upstream.recv(PIECE):
                client.sendall(piece)

    def _forward_late(
        self, request: bytes, client: socket.socket, after: Callable[[bytes], bytes]
    ) -> None:
        with self._kept(self._connect()) as upstream:
            upstream.sendall(request)
            pieces = []
            while piece := upstream.recv(PIECE):
                pieces.append(piece)
        client.sendall(after(b"".join(pieces)))

    def _connect(self) -> socket.socket:
        if isinstance(self._upstream, Path):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.connect(str(self._upstream))
            return made
        return socket.create_connection(self._upstream)

    @contextmanager
    def _kept(self, one: socket.socket) -> Iterator[socket.socket]:
        with self._lock:
            self._open.add(one)
        try:
            with one:
                yield one
        finally:
            with self._lock:
                self._open.discard(one)


def _read_request(client: socket.socket) -> bytes:
    """One whole request, with its sender's wish to keep the connection taken out."""
    received = b""
    while HEAD_END not in received:
        piece = client.recv(PIECE)
        if not piece:
            return b""
        received += piece
    head, _, body = received.partition(HEAD_END)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    chunked = re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head)
    while (chunked and not body.endswith(b"0" + HEAD_END)) or (
        length and len(body) < int(length[1])
    ):
        piece = client.recv(PIECE)
        if not piece:
            return b""
        body += piece
    head = re.sub(rb"(?i)\r\n(connection|keep-alive|accept-encoding): *[^\r]*", b"", head)
    return head + b"\r\nConnection: close" + HEAD_END + body


def _hung_up(client: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return False


def _name_of(request: bytes) -> str:
    if found := _OPERATION.search(request):
        return found[1].decode()
    method, path, *_ = request.decode(errors="replace").split(" ", 2)
    return f"{method} {path.partition('?')[0]}"
