"""Lines to servers: send a request, give the response's status, headers and bytes. Sync and async, over httpcore."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

import httpcore

from .. import __version__
from ..routing.backend import Backend
from ..wire.exchange import WireRequest
from ..wire.trouble import Failure, Trouble
from .alarm import Alarm
from .kept import Kept
from .loops import PerLoop
from .network import AsyncNetwork, SyncNetwork, said, socket_options
from .watch import CURRENT, Watch

__all__ = [
    "KEEPALIVE",
    "USER_AGENT",
    "AsyncHttpLine",
    "AsyncLine",
    "AsyncResponse",
    "HttpLine",
    "Line",
    "LineFailed",
    "Response",
    "bare",
    "decoded",
]

# A kept connection older than this is not used again; servers' own limits are 5 s (uvicorn) and up, hence the free retry.
KEEPALIVE = 30.0

# Who asks, for a server's log.
USER_AGENT = f"hydra-infer/{__version__}"

# What httpcore raises when a connection breaks.
_BREAKS = (httpcore.NetworkError, httpcore.ProtocolError, OSError)

E = TypeVar("E", bound=BaseException)


class LineFailed(Exception):
    """The exchange broke on the way. `stale`: on a reused connection with no byte received, so that asking again is safe."""

    def __init__(self, failure: Failure, *, stale: bool = False) -> None:
        super().__init__(failure.message)
        self.failure, self.stale = failure, stale


def bare(error: E) -> E:
    """A library's error without the frames that it and its causes went through, ours among them.

    aiohttp, asyncio and h11 leave errors in variables of just those frames. Both would wait for the garbage collector, with all
    that a call holds, and when a server dies that is many calls at once.
    """
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__  # and not __context__, which may be an error that our caller is about to handle
    return error


class Response(Protocol):
    """A response whose body is read piece by piece, an empty one at its end; header names are lower-case."""

    status: int
    headers: dict[str, str]

    def read(self) -> bytes: ...
    def close(self) -> None: ...


class AsyncResponse(Protocol):
    """The same for event loops."""

    status: int
    headers: dict[str, str]

    async def read(self) -> bytes: ...
    async def aclose(self) -> None: ...


class Line(Protocol):
    """One backend as threads reach it."""

    def send(self, request: WireRequest, watch: Watch) -> Response: ...
    def close(self) -> None: ...
    def renew(self) -> None: ...


class AsyncLine(Protocol):
    """One backend as event loops reach it."""

    async def send(self, request: WireRequest, watch: Watch) -> AsyncResponse: ...
    async def aclose(self) -> None: ...


class HttpLine:
    """A server over HTTP for threads: kept connections without a limit (the limit is max_parallel)."""

    def __init__(self, backend: Backend) -> None:
        self._origin = _Origin(backend)
        self._network, self._options = SyncNetwork(), socket_options()
        self._kept = Kept(self._connection, KEEPALIVE)

    def send(self, request: WireRequest, watch: Watch) -> Response:
        token = CURRENT.set(watch)
        connection, spent = self._kept.take()
        for old in spent:
            old.close()
        try:
            response = connection.handle_request(self._origin.request(request))
        except BaseException as error:
            self._over(connection)
            if isinstance(error, httpcore.TimeoutException):
                raise LineFailed(_timed_out(watch, error)) from bare(error)
            if isinstance(error, _BREAKS):
                raise LineFailed(_lost(watch, error, self._origin.host), stale=_is_stale(watch, error)) from bare(error)
            raise
        finally:
            CURRENT.reset(token)
        return _HttpResponse(response, watch, functools.partial(self._over, connection))

    def close(self) -> None:
        for connection in self._kept.clear():
            connection.close()

    def renew(self) -> None:
        """A forked child must not write into its parent's connections; closing its copies of them leaves those as they are."""
        self._kept.renew()
        self.close()

    def _over(self, connection: httpcore.HTTPConnection) -> None:
        for spent in self._kept.give(connection):
            spent.close()

    def _connection(self) -> httpcore.HTTPConnection:
        return httpcore.HTTPConnection(
            self._origin.core,
            ssl_context=self._origin.tls,
            keepalive_expiry=KEEPALIVE,
            network_backend=self._network,
            socket_options=self._options,
        )


class _HttpResponse:
    def __init__(self, response: httpcore.Response, watch: Watch, over: Callable[[], None]) -> None:
        self.status, self.headers = response.status, decoded(response.headers)
        self._response, self._watch = response, watch
        self._parts = response.iter_stream()
        self._over: Callable[[], None] | None = over

    def read(self) -> bytes:
        try:
            return next(self._parts, b"")
        except httpcore.TimeoutException as error:
            raise LineFailed(_timed_out(self._watch, error)) from bare(error)
        except _BREAKS as error:
            raise LineFailed(_lost(self._watch, error)) from bare(error)

    def close(self) -> None:
        over, self._over = self._over, None
        if over is None:  # closed before; its connection serves another call by now
            return
        try:
            self._response.close()
        finally:
            over()


class AsyncHttpLine:
    """A server over HTTP for event loops: each loop has its own connections, closed when the loop shuts down."""

    def __init__(self, backend: Backend) -> None:
        self._origin = _Origin(backend)
        self._network, self._options = AsyncNetwork(), socket_options()
        self._links = PerLoop(lambda: _Link(Kept(self._connection, KEEPALIVE), Alarm()), _aclose_all)

    async def send(self, request: WireRequest, watch: Watch) -> AsyncResponse:
        kept, alarm = self._links.held() or await self._links.get()
        token = CURRENT.set(watch)
        watch.start(alarm)
        connection, spent = kept.take()
        try:
            for old in spent:
                await old.aclose()
            response = await connection.handle_async_request(self._origin.request(request))
        except BaseException as error:
            await _over(kept, connection)
            if isinstance(error, httpcore.TimeoutException):
                raise LineFailed(_timed_out(watch, error)) from bare(error)
            if isinstance(error, _BREAKS):
                if watch.expired:
                    raise LineFailed(_timed_out(watch, error)) from bare(error)
                raise LineFailed(_lost(watch, error, self._origin.host), stale=_is_stale(watch, error)) from bare(error)
            raise
        finally:
            CURRENT.reset(token)
        return _AsyncHttpResponse(response, watch, functools.partial(_over, kept, connection))

    async def aclose(self) -> None:
        """Close the running loop's connections; other loops close theirs when they shut down."""
        await self._links.aclose()

    def _connection(self) -> httpcore.AsyncHTTPConnection:
        return httpcore.AsyncHTTPConnection(
            self._origin.core,
            ssl_context=self._origin.tls,
            keepalive_expiry=KEEPALIVE,
            network_backend=self._network,
            socket_options=self._options,
        )


class _Link(NamedTuple):
    """What one event loop has of a line."""

    kept: Kept[httpcore.AsyncHTTPConnection]
    alarm: Alarm


class _AsyncHttpResponse:
    def __init__(self, response: httpcore.Response, watch: Watch, over: Callable[[], Awaitable[None]]) -> None:
        self.status, self.headers = response.status, decoded(response.headers)
        self._response, self._watch = response, watch
        self._parts = response.aiter_stream()
        self._over: Callable[[], Awaitable[None]] | None = over

    async def read(self) -> bytes:
        try:
            return await anext(self._parts, b"")
        except httpcore.TimeoutException as error:
            raise LineFailed(_timed_out(self._watch, error)) from bare(error)
        except _BREAKS as error:
            failure = _timed_out(self._watch, error) if self._watch.expired else _lost(self._watch, error)
            raise LineFailed(failure) from bare(error)

    async def aclose(self) -> None:
        self._watch.stop()
        over, self._over = self._over, None
        if over is None:
            return
        try:
            await self._parts.aclose()  # type: ignore[attr-defined]  # httpcore calls its async generator an iterator
            await self._response.aclose()
        finally:
            await over()


async def _over(kept: Kept[httpcore.AsyncHTTPConnection], connection: httpcore.AsyncHTTPConnection) -> None:
    for spent in kept.give(connection):
        await spent.aclose()


async def _aclose_all(link: _Link) -> None:
    for connection in link.kept.clear():
        await connection.aclose()


class _Origin:
    """Where a backend's server is, in httpcore's terms."""

    def __init__(self, backend: Backend) -> None:
        parts = urlsplit(backend.url)
        self.host = parts.hostname or ""
        scheme, host = parts.scheme.encode(), self.host.encode("idna")
        usual = 443 if scheme == b"https" else 80
        port = parts.port or usual
        self.core = httpcore.Origin(scheme, host, port)
        shown = b"[%s]" % host if b":" in host else host
        self._host = (b"host", shown if port == usual else b"%s:%d" % (shown, port))

    @functools.cached_property
    def tls(self) -> ssl.SSLContext | None:
        """The authorities that httpx trusts, read once and not for every connection."""
        return httpcore.default_ssl_context() if self.core.scheme == b"https" else None

    def request(self, request: WireRequest) -> httpcore.Request:
        sent = {"user-agent": USER_AGENT, **request.headers}
        headers = [
            self._host,
            *((name.encode(), value.encode("latin-1", "replace")) for name, value in sent.items()),
            (b"content-length", str(len(request.body)).encode()),
        ]
        scheme, host, port = self.core.scheme, self.core.host, self.core.port
        url = httpcore.URL(scheme=scheme, host=host, port=port, target=request.path.encode())
        return httpcore.Request(request.method, url, headers=headers, content=request.body)


def decoded(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as a Response has them: lower-case names."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _timed_out(watch: Watch, error: Exception) -> Failure:
    if isinstance(error, httpcore.ConnectTimeout) and not watch.expired:
        return Failure(Trouble.UNREACHABLE, str(error) or "no connection within connect_timeout", limit="connect_timeout")
    return Failure(Trouble.SILENT, watch.verdict, limit=watch.blame)


def _is_stale(watch: Watch, error: Exception) -> bool:
    """Whether a kept connection turned out to be dead before anything came; one that could not be made is not stale."""
    return not (watch.fresh or watch.received or isinstance(error, httpcore.ConnectError))


def _lost(watch: Watch, error: Exception, host: str = "") -> Failure:
    reason = said(error, host)
    return Failure(
        Trouble.UNREACHABLE if not watch.received else Trouble.BROKEN,
        f"connection lost: {reason}" if watch.fresh else reason,
    )
