"""One question to one server without the socket: a request to send, response bytes in, events out."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from .bounds import MAX_BODY_BYTES, MAX_ERROR_BYTES, MAX_STREAM_BYTES, MAX_VECTOR_BYTES, UNPACKED_AT_ONCE
from .trouble import Failure, Trouble

__all__ = ["Decoder", "Event", "Exchange", "Receiver", "WireRequest", "broken"]


class WireRequest(NamedTuple):
    """What goes out: the path begins with /; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Event(NamedTuple):
    """One OpenAI-shaped piece of an answer: `data` the JSON object, `raw` its text as it came.

    `tokens`: it carries something the model produced, so the server has answered and is alive.
    `whole`: it is a complete body, not a piece of a stream. `usage_only`: it carries token counts and nothing else.
    """

    data: dict[str, Any]
    raw: bytes
    tokens: bool = False
    whole: bool = False
    usage_only: bool = False


class Exchange(Protocol):
    """A dialect's side of one attempt. The transport sends `request`, then calls head, feed … feed, end.

    `warnings` tell what had to be changed for this server. After each call, `failure` is set when the attempt is lost, and
    `answered` once the first token-bearing event or the complete JSON body has arrived. Headers with status 200 are no
    answer: servers send them and then fail to allocate. `upstream` is what a proxy tells of the server behind it.
    """

    request: WireRequest
    warnings: tuple[str, ...]
    answered: bool
    finished: bool
    failure: Failure | None
    moved: str | None
    upstream: dict[str, Any] | None

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The response's status and headers (lower-case names)."""

    def feed(self, data: bytes) -> list[Event]:
        """A piece of the response's body."""

    def end(self) -> list[Event]:
        """The body has ended, as the connection tells it."""


class Receiver:
    """Where an exchange stands in its response: what every dialect keeps, and how every response begins."""

    def __init__(self, path: str) -> None:
        self.answered = False
        self.finished = False
        self.failure: Failure | None = None
        self.moved: str | None = None
        self.upstream: dict[str, Any] | None = None
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._decoder = PLAIN
        self._body = bytearray()  # of a body that is not a stream, and of a stream not yet known as one
        self._most = MAX_VECTOR_BYTES if path == "/embeddings" else MAX_BODY_BYTES  # bytes of one that is not a stream
        self._streamed = 0

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The response's status and headers (lower-case names)."""
        self._status, self._headers = status, headers
        announced = headers.get("content-length", "")
        try:
            if encoding := headers.get("content-encoding"):
                self._decoder = Decoder(encoding)
            if 200 <= status < 300 and announced.isdecimal() and int(announced[:20]) > MAX_VECTOR_BYTES:
                raise ValueError(f"it announces a body of {announced[:20]} bytes, more than {MAX_VECTOR_BYTES}")
        except ValueError as error:
            self.failure = broken(str(error), status)

    def _keep(self, data: bytes) -> bool:
        """Add to a body that is not a stream; False when that is an error page of which enough is there."""
        is_error = not 200 <= self._status < 300
        self._body += data
        if len(self._body) > (MAX_ERROR_BYTES if is_error else self._most):
            if not is_error:
                raise ValueError(f"the body is larger than {self._most} bytes")
            del self._body[MAX_ERROR_BYTES:]
            return False
        return True

    def _count(self, data: bytes) -> None:
        """Count a piece of a stream. Raises ValueError where it has become too long."""
        self._streamed += len(data)
        if self._streamed > MAX_STREAM_BYTES:
            raise ValueError(f"the stream is longer than {MAX_STREAM_BYTES} bytes")


class Decoder:
    """Content-Encoding undone piece by piece. We ask for identity; some servers and proxies compress all the same."""

    def __init__(self, encoding: str) -> None:
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise ValueError(f"the body is encoded as {encoding!r}")
        self._inflate = None if name in ("", "identity") else zlib.decompressobj(47 if "gzip" in name else 15)

    def feed(self, data: bytes) -> Iterable[bytes]:
        """The piece decoded, in pieces of at most UNPACKED_AT_ONCE. Raises ValueError, also on the way, for no such data."""
        return (data,) if self._inflate is None else self._unpacked(data)

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        assert self._inflate is not None
        while data:
            try:
                yield self._inflate.decompress(data, UNPACKED_AT_ONCE)
            except zlib.error as error:
                raise ValueError(f"the compressed body is damaged: {error}") from error
            data = self._inflate.unconsumed_tail


PLAIN = Decoder("")


def broken(message: str, status: int | None = 200) -> Failure:
    """A failure for an answer that is no answer."""
    return Failure(Trouble.BROKEN, message, status=status)
