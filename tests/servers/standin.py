"""The HTTP side that all stand-in servers share: threads on 127.0.0.1, answers given step by step, clients that leave noticed."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import socketserver
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from .mind import TICK

__all__ = ["Asked", "Head", "Refused", "Slots", "StandIn", "Step", "plain"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came; header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """The body's JSON, {} when there is none. Raises ValueError."""
        return json.loads(self.data) if self.data else {}


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers. Without a content-length among them the body is sent in chunks."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


# What an answer is made of: first its Head, then its bytes. b"" in between is a moment in which nothing happens.
Step = Head | bytes


class Refused(Exception):
    """The answer is an error: bytes are sent as text, anything else as JSON."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


class StandIn:
    """A server that ends with its `with` block; it may be closed and started again on its port, and keeps what it knows.

    A subclass answers in `answer`, a generator of Steps that is closed when the client leaves. `requests` is everything
    that came.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: list[Asked] = []
        self.left = threading.Event()  # a client went away before its answer was over
        self._server: _Server | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [asked.path for asked in self.requests]

    def answer(self, asked: Asked) -> Iterator[Step]:
        """How this kind of server answers."""
        raise NotImplementedError

    def start(self) -> None:
        """Listen."""
        self._server = _Server(self, self.port)
        self.port = self._server.server_address[1]

    def close(self) -> None:
        """Stop listening and cut every connection, as a process that dies does. Safe to call again."""
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Slots:
    """So many at once; the others wait, first come, first served, and nobody tells them."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[object] = deque()
        self._lock = threading.Lock()

    def take(self) -> Iterator[bytes]:
        """Moments until a slot is taken; whoever stops here has left the line."""
        ticket = object()
        self._line.append(ticket)
        try:
            while True:
                with self._lock:
                    if self._free and self._line[0] is ticket:
                        self._free -= 1
                        return
                time.sleep(TICK)
                yield b""
        finally:
            self._line.remove(ticket)

    def give(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._free += 1


def plain(body: Any, status: int = 200, content_type: str = "application/json") -> Iterator[Step]:
    """A complete answer: JSON, or text from bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    kind = "text/plain; charset=utf-8" if isinstance(body, bytes) else content_type
    yield Head(status, {"content-type": kind, "content-length": str(len(data))})
    yield data


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, standin: StandIn, port: int) -> None:
        self.standin = standin
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(TICK,), daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Silence."""

    def do_POST(self) -> None:
        standin = self.server.standin
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = Asked(self.command, self.path.split("?")[0], {name.lower(): value for name, value in self.headers.items()}, data)
        standin.requests.append(asked)
        steps = _refusing(standin, asked)
        try:
            self._send(steps)
        except OSError:
            standin.left.set()
            self.close_connection = True
        finally:
            steps.close()

    do_GET = do_HEAD = do_DELETE = do_PUT = do_POST  # noqa: N815 - http.server's names

    def _send(self, steps: Iterator[Step]) -> None:
        chunked = False
        for step in steps:
            if isinstance(step, Head):
                chunked = "content-length" not in step.headers
                self._send_head(step, chunked=chunked)
            elif not step:
                self._look()
            elif self.command != "HEAD":
                self.wfile.write(b"%x\r\n%s\r\n" % (len(step), step) if chunked else step)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send_head(self, head: Head, *, chunked: bool) -> None:
        self.send_response(head.status)
        for name, value in head.headers.items():
            self.send_header(name, value)
        if chunked:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        # uvicorn and others drop the connection after an error of their own, without a word in the headers.
        self.close_connection = self.close_connection or head.status == 500

    def _look(self) -> None:
        """Notice a client that has left."""
        if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError


def _refusing(standin: StandIn, asked: Asked) -> Generator[Step, None, None]:
    try:
        yield from standin.answer(asked)
    except Refused as refused:
        yield from plain(refused.body, refused.status)
