"""Lines to servers for event loops over aiohttp: several times the calls per second of httpcore; same seam, same limits."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import socket
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import httpcore

from ..routing.backend import Backend
from ..wire.exchange import WireRequest
from ..wire.trouble import Failure, Trouble
from .alarm import Alarm
from .loops import PerLoop
from .network import said, socket_options
from .upstream import KEEPALIVE, USER_AGENT, AsyncHttpLine, AsyncLine, AsyncResponse, LineFailed, bare, decoded
from .watch import CURRENT, Watch

if TYPE_CHECKING:
    import aiohttp

__all__ = ["AiohttpLine", "async_line"]

# The first release that limits how many headers a response may have.
_OLDEST = (3, 13, 4)

# aiohttp warns of larger bodies given as bytes, because it writes them in one go; a file it writes piece by piece.
_LARGE = 2**20


def async_line(backend: Backend) -> AsyncLine:
    """A server as event loops reach it: over aiohttp where a fit release is installed, else over httpcore."""
    try:
        import aiohttp
    except ModuleNotFoundError:
        return AsyncHttpLine(backend)
    release = tuple(int(part) for part in aiohttp.__version__.split(".")[:3] if part.isdigit())
    return AiohttpLine(backend) if release >= _OLDEST else AsyncHttpLine(backend)


class AiohttpLine:
    """A server over HTTP: each loop has its own connections, without a limit; no cookies, no proxy, no redirects."""

    def __init__(self, backend: Backend) -> None:
        import aiohttp  # once: an import costs each call something even when it has nothing to do

        self._aiohttp = aiohttp
        self._url = backend.url
        self._links = PerLoop(self._open, _close)

    async def send(self, request: WireRequest, watch: Watch) -> AsyncResponse:
        aiohttp = self._aiohttp
        session, alarm = self._links.held() or await self._links.get()
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        token = CURRENT.set(watch)
        watch.abort = task.cancel  # as asyncio.timeout does, but without a timer of its own
        watch.start(alarm)
        try:
            response = await session.request(
                request.method,
                self._url + request.path,
                headers=request.headers,
                data=self._payload(request.body),
                allow_redirects=False,
                timeout=_connecting(watch.connect_left()),
            )
        except asyncio.CancelledError as error:
            if not watch.aborted or task.uncancel() > cancelling:  # somebody else's
                raise
            if watch.socket is not None:  # a server that reads no more would hold it open, and what is still to be written
                with contextlib.suppress(OSError):
                    watch.socket.shutdown(socket.SHUT_RDWR)
            raise LineFailed(_silent(watch)) from bare(error)
        except aiohttp.ConnectionTimeoutError as error:
            message = "no connection within connect_timeout"
            raise LineFailed(Failure(Trouble.UNREACHABLE, message, limit="connect_timeout")) from bare(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a header with a line break in it
            raise _without_response(watch, error) from bare(error)
        finally:
            CURRENT.reset(token)
        watch.abort = response.close
        if response.connection is None:  # the body came with the headers
            watch.stop()
        return _Response(response, watch, aiohttp)

    def _payload(self, body: bytes) -> aiohttp.Payload | None:
        """Made here, so that aiohttp need not find out what it has been given."""
        if len(body) > _LARGE:
            return self._aiohttp.BytesIOPayload(io.BytesIO(body))
        return self._aiohttp.BytesPayload(body) if body else None

    async def aclose(self) -> None:
        """Close the running loop's connections; other loops close theirs when they shut down."""
        await self._links.aclose()

    def _open(self) -> _Link:
        connector = _connectors(self._aiohttp)(
            limit=0,
            keepalive_timeout=KEEPALIVE,
            ssl=httpcore.default_ssl_context() if self._url.startswith("https:") else True,  # the authorities httpx trusts
            socket_factory=_socket,
        )
        session = self._aiohttp.ClientSession(
            connector=connector,
            cookie_jar=self._aiohttp.DummyCookieJar(),
            headers={"user-agent": USER_AGENT},
            auto_decompress=False,
            trust_env=False,
        )
        return _Link(session, Alarm())


class _Link(NamedTuple):
    """What one event loop has of a line."""

    session: aiohttp.ClientSession
    alarm: Alarm


class _Response:
    def __init__(self, response: aiohttp.ClientResponse, watch: Watch, aiohttp: ModuleType) -> None:
        self._faults = (aiohttp.ClientError, OSError)
        self.status, self.headers = response.status, decoded(response.raw_headers)
        self._response, self._watch = response, watch
        self._error: Exception | None = None
        self._closed: asyncio.Future[None] | None = None
        connection = response.connection
        if connection is not None and (protocol := connection.protocol) is not None:  # else all has come
            self._closed = protocol.closed
            if self._closed is None:
                self._cut()
            else:
                over = MethodType(_over, protocol.transport or protocol)  # two of the same one are equal
                self._closed.remove_done_callback(over)
                self._closed.add_done_callback(over)
                self._closed.add_done_callback(self._cut)

    async def read(self) -> bytes:
        if self._error is None:
            try:
                return await self._response.content.readany()
            except self._faults as error:
                # One that aiohttp raises again and again would gather the frames of every response that it ended.
                self._error = bare(error)
            if data := self._left_over():
                return data
        broken = Failure(Trouble.BROKEN, f"connection lost: {str(self._error) or type(self._error).__name__}")
        raise LineFailed(_silent(self._watch) if self._watch.expired else broken) from self._error

    def _left_over(self) -> bytes:
        """What had come before the fault: aiohttp keeps it, but tells of the fault first."""
        content = self._response.content
        content.set_exception(None)  # type: ignore[arg-type]  # the one public way to the rest
        return content.read_nowait()

    def _cut(self, _: asyncio.Future[None] | None = None) -> None:
        """aiohttp closes a connection on a malformed chunk, and then leaves the body's reader to wait for ever."""
        import aiohttp

        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the body is malformed"))

    async def aclose(self) -> None:
        self._watch.stop()
        if self._closed is not None:
            self._closed.remove_done_callback(self._cut)
        self._response.close()


@functools.cache
def _connectors(aiohttp: ModuleType) -> type[aiohttp.TCPConnector]:
    """aiohttp's connections to servers, but the last used first, as over httpcore.

    aiohttp takes the one that has waited longest. Then each is used now and then, none grows old, and what a burst has opened
    stays open, 8 KiB each, as long as there are calls at all.
    """

    class LastUsedFirst(aiohttp.TCPConnector):  # type: ignore[misc,name-defined]
        def _release(self, key: Any, protocol: Any, **options: Any) -> None:
            super()._release(key, protocol, **options)
            kept = getattr(self, "_conns", {}).get(key)
            if kept and kept[-1][0] is protocol:
                kept.rotate(1)  # they are taken from the left

    return LastUsedFirst


@functools.lru_cache(maxsize=64)
def _connecting(seconds: float) -> aiohttp.ClientTimeout:
    """Time for the connection alone; all else is the watch's."""
    import aiohttp

    return aiohttp.ClientTimeout(connect=seconds)


# Methods of its own that a transport of asyncio holds. Python 3.12 lets go of them itself when one is closed, not when it is cut.
_OWN = ("_read_ready_cb", "_write_ready")


def _over(transport: object, closed: asyncio.Future[None]) -> None:
    """A connection has ended. How is told by its body too, but asyncio complains of a future's error that nobody looks at."""
    if not closed.cancelled():
        closed.exception()
    held = getattr(transport, "__dict__", {})
    for name in _OWN:  # else it waits for the garbage collector, and for long, since it is old
        if name in held:
            held[name] = None


async def _close(link: _Link) -> None:
    await link.session.close()
    await asyncio.sleep(0)  # transports close in the loop's next turn, and there may be no other


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for a new connection of the attempt that is being made."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    watch = CURRENT.get()
    watch.fresh, watch.socket = True, made
    for option in socket_options():
        made.setsockopt(*option)
    return made


def _silent(watch: Watch) -> Failure:
    return Failure(Trouble.SILENT, watch.verdict, limit=watch.blame)


def _without_response(watch: Watch, error: Exception) -> LineFailed:
    """Asking again is safe on a kept connection that ended before a response began; of a reset aiohttp does not tell when."""
    import aiohttp

    if isinstance(error, ValueError):
        return LineFailed(Failure(Trouble.UNREACHABLE, str(error)))
    if isinstance(error, aiohttp.ClientConnectorError):
        return LineFailed(Failure(Trouble.UNREACHABLE, said(error.os_error, error.host)))
    if isinstance(error, aiohttp.ClientResponseError):
        return LineFailed(Failure(Trouble.BROKEN, f"not HTTP: {error.message.splitlines()[0]}"))
    if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        return LineFailed(Failure(Trouble.BROKEN, "connection lost: the headers were cut short"))
    return LineFailed(Failure(Trouble.UNREACHABLE, f"connection lost: {said(error, '')}"), stale=not watch.fresh)
