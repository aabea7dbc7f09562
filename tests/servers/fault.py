"""A server that does exactly what a test tells it: one script of bytes, silences and cuts per request, on raw sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

__all__ = ["CUT", "RESET", "FaultServer", "chunked", "head", "hello", "plain", "sse"]

CUT, RESET = object(), object()  # end the connection cleanly (FIN) or rudely (RST)
Script = Iterable[Any]  # bytes to send, floats to sleep, CUT or RESET


class FaultServer:
    """Answers each request with the next script; the last one repeats. Counts requests, connections and lost clients.

    `requests` holds (method, path, headers, body) of everything that came. Ends with the `with` block.
    """

    def __init__(self, *scripts: Script | Callable[[bytes], Script], port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._scripts, self._tls = list(scripts), tls
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.left = threading.Event()  # a client went away before its answer was over
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        with self._lock:
            for open_socket in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # As real servers do; else small pieces would wait for the client's delayed acknowledgement, some 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            reader = connection.makefile("rb")
            while (request := _read_request(reader)) is not None:
                with self._lock:
                    self.requests.append(request)
                    script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                for step in script(request[3]) if callable(script) else script:
                    if step is CUT or step is RESET:
                        if step is RESET:
                            _reset(connection)
                        return
                    if isinstance(step, float):
                        self._sleep(connection, step)
                    else:
                        connection.sendall(step)
        except (OSError, ValueError):  # ValueError: the request itself was cut
            self.left.set()
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _sleep(self, connection: socket.socket, seconds: float) -> None:
        """Sleep, but notice a client that leaves."""
        connection.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            if connection.recv(1, socket.MSG_PEEK) == b"":
                raise ConnectionResetError
            time.sleep(seconds)
        connection.settimeout(None)


def _reset(connection: socket.socket) -> None:
    """Closing will then send RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _read_request(reader: Any) -> tuple[str, str, dict[str, str], bytes] | None:
    first = reader.readline()
    if not first:
        return None
    method, path, _ = first.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, value = line.decode("latin-1").split(":", 1)
        headers[name.strip().lower()] = value.strip()
    return method, path, headers, reader.read(int(headers.get("content-length", 0)))


def head(status: int = 200, content_type: str = "application/json", **headers: Any) -> bytes:
    """Status line and headers, up to and with the blank line."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"content-type: {content_type}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def plain(body: Any, status: int = 200, content_type: str = "application/json", **headers: Any) -> list[bytes]:
    """A complete answer; a dict is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [head(status, content_type, content_length=len(data), **headers) + data]


def chunked(*parts: Any, content_type: str = "text/event-stream", end: bool = True) -> list[Any]:
    """A chunked answer: bytes become chunks; floats, CUT and RESET stay what they are."""
    script: list[Any] = [head(200, content_type, transfer_encoding="chunked")]
    script += [b"%x\r\n%s\r\n" % (len(part), part) if isinstance(part, bytes) else part for part in parts]
    return [*script, b"0\r\n\r\n"] if end else script


def sse(event: Any) -> bytes:
    """One server-sent event; a dict is sent as JSON."""
    return b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"


def word(text: str, finish: str | None = None, model: str = "local") -> bytes:
    """A chat chunk."""
    return sse(
        {
            "object": "chat.completion.chunk",
            "model": model,
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
        }
    )


def hello(name: str) -> Callable[[bytes], Script]:
    """A healthy server's answer "hello from <name>", streamed or whole as asked; embeddings and model lists too."""

    def answer(body: bytes) -> Script:
        asked = json.loads(body) if body else {}
        if not asked:
            return plain({"data": [{"id": "m"}]})
        if "input" in asked:
            return plain(
                {
                    "model": "local",
                    "data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}],
                    "usage": {"prompt_tokens": 2},
                }
            )
        if asked.get("stream"):
            usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}}
            return chunked(word("hello"), word(" from"), word(f" {name}"), word("", "stop"), sse(usage), sse(b"[DONE]"))
        message = {"role": "assistant", "content": f"hello from {name}"}
        return plain(
            {
                "object": "chat.completion",
                "model": "local",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
        )

    return answer
