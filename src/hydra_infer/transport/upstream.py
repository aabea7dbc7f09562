"""Lines to servers: send a request, give the response's status, headers and bytes. Sync and async, over httpcore."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol
from urllib.parse import urlsplit

import httpcore

from ..routing.backend import Backend
from ..wire.exchange import WireRequest
from ..wire.trouble import Failure, Trouble
from .loops import PerLoop
from .network import AsyncNetwork, SyncNetwork, socket_options
from .watch import CURRENT, Watch

__all__ = ["KEEPALIVE", "AsyncHttpLine", "AsyncLine", "AsyncResponse", "HttpLine", "Line", "LineFailed", "Response", "decoded"]

# A kept connection older than this is not used again; servers' own limits are 5 s (uvicorn) and up, hence the free retry.
KEEPALIVE = 30.0


class LineFailed(Exception):
    """The exchange broke on the way. `stale`: on a reused connection with no byte received, so that asking again is safe."""

    def __init__(self, failure: Failure, *, stale: bool = False) -> None:
        super().__init__(failure.message)
        self.failure, self.stale = failure, stale


class Response(Protocol):
    """A response whose body is read by iterating; header names are lower-case."""

    status: int
    headers: dict[str, str]

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AsyncResponse(Protocol):
    """The same for event loops."""

    status: int
    headers: dict[str, str]

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class Line(Protocol):
    """One backend as threads reach it."""

    def send(self, request: WireRequest, watch: Watch) -> Response: ...
    def close(self) -> None: ...


class AsyncLine(Protocol):
    """One backend as event loops reach it."""

    async def send(self, request: WireRequest, watch: Watch) -> AsyncResponse: ...
    async def aclose(self) -> None: ...


class HttpLine:
    """A server over HTTP for threads: one pool of kept connections without a limit (the limit is max_parallel)."""

    def __init__(self, backend: Backend) -> None:
        self._origin = _origin(backend)
        self._lock = threading.Lock()
        self._pool: httpcore.ConnectionPool | None = None
        self._pid = 0

    def send(self, request: WireRequest, watch: Watch) -> Response:
        token = CURRENT.set(watch)
        try:
            return _HttpResponse(self._connections().handle_request(_core_request(self._origin, request)), watch)
        except httpcore.TimeoutException as error:
            raise LineFailed(_timed_out(watch, error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise LineFailed(_lost(watch, error), stale=_is_stale(watch, error)) from error
        finally:
            CURRENT.reset(token)

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _connections(self) -> httpcore.ConnectionPool:
        with self._lock:
            # A forked child must not write into its parent's connections.
            if self._pool is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._pool = httpcore.ConnectionPool(
                    max_connections=None,
                    keepalive_expiry=KEEPALIVE,
                    network_backend=SyncNetwork(),
                    socket_options=socket_options(),
                )
            return self._pool


class _HttpResponse:
    def __init__(self, response: httpcore.Response, watch: Watch) -> None:
        self.status, self.headers = response.status, decoded(response.headers)
        self._response, self._watch = response, watch

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_stream()
        except httpcore.TimeoutException as error:
            raise LineFailed(_timed_out(self._watch, error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise LineFailed(_lost(self._watch, error)) from error

    def close(self) -> None:
        self._response.close()


class AsyncHttpLine:
    """A server over HTTP for event loops: each loop has its own connections, closed when the loop shuts down."""

    def __init__(self, backend: Backend) -> None:
        self._origin = _origin(backend)
        self._pools = PerLoop(_async_pool, httpcore.AsyncConnectionPool.aclose)

    async def send(self, request: WireRequest, watch: Watch) -> AsyncResponse:
        pool = await self._pools.get()
        token = CURRENT.set(watch)
        watch.start_timer(asyncio.get_running_loop())
        try:
            return _AsyncHttpResponse(await pool.handle_async_request(_core_request(self._origin, request)), watch)
        except httpcore.TimeoutException as error:
            raise LineFailed(_timed_out(watch, error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            if watch.expired:
                raise LineFailed(_timed_out(watch, error)) from error
            raise LineFailed(_lost(watch, error), stale=_is_stale(watch, error)) from error
        finally:
            CURRENT.reset(token)

    async def aclose(self) -> None:
        """Close the running loop's connections; other loops close theirs when they shut down."""
        await self._pools.aclose()


class _AsyncHttpResponse:
    def __init__(self, response: httpcore.Response, watch: Watch) -> None:
        self.status, self.headers = response.status, decoded(response.headers)
        self._response, self._watch = response, watch
        self._parts = response.aiter_stream()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except httpcore.TimeoutException as error:
            raise LineFailed(_timed_out(self._watch, error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise LineFailed(_timed_out(self._watch, error) if self._watch.expired else _lost(self._watch, error)) from error

    async def aclose(self) -> None:
        self._watch.stop_timer()
        await self._parts.aclose()  # type: ignore[attr-defined]  # httpcore calls its async generator an iterator
        await self._response.aclose()


def _async_pool() -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        max_connections=None, keepalive_expiry=KEEPALIVE, network_backend=AsyncNetwork(), socket_options=socket_options()
    )


def _origin(backend: Backend) -> tuple[bytes, bytes, int]:
    parts = urlsplit(backend.url)
    return (
        parts.scheme.encode(),
        (parts.hostname or "").encode("idna"),
        parts.port or (443 if parts.scheme == "https" else 80),
    )


def _core_request(origin: tuple[bytes, bytes, int], request: WireRequest) -> httpcore.Request:
    scheme, host, port = origin
    shown = (
        host if port == (443 if scheme == b"https" else 80) else b"%s:%d" % (host if b":" not in host else b"[%s]" % host, port)
    )
    headers = [
        (b"host", shown),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in request.headers.items()),
    ]
    headers.append((b"content-length", str(len(request.body)).encode()))
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=scheme, host=host, port=port, target=request.path.encode()),
        headers=headers,
        content=request.body,
    )


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


def _lost(watch: Watch, error: Exception) -> Failure:
    reason = str(error) or type(error).__name__
    return Failure(
        Trouble.UNREACHABLE if not watch.received else Trouble.BROKEN,
        f"connection lost: {reason}" if watch.fresh else reason,
    )
