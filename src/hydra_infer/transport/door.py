"""The Router as a transport of httpx or httpx2: hand its client to any SDK that takes one."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

from .desk import AsyncBody, Body, Desk

__all__ = ["async_client", "client"]

# A client has no timeout of its own, so that a caller's is told apart; and no proxy of the environment.
_SETTINGS: dict[str, Any] = {"base_url": "http://hydra.invalid/v1", "timeout": None, "trust_env": False}


def client(library: Any, desk: Desk) -> Any:
    """A Client of `library` (the module httpx or httpx2) whose every request goes to the Router."""
    return library.Client(transport=_transport_class(library)(desk), **_SETTINGS)


def async_client(library: Any, desk: Desk) -> Any:
    """The same for event loops."""
    return library.AsyncClient(transport=_transport_class(library)(desk), **_SETTINGS)


@functools.cache
def _transport_class(library: Any) -> Any:
    """One body for both libraries: httpx2 goes on from httpx 0.28 under the same names, but its classes are its own."""

    class Stream(library.SyncByteStream):  # type: ignore[misc]  # the library is a parameter
        def __init__(self, body: Body) -> None:
            self._body = body

        def __iter__(self) -> Iterator[bytes]:
            return iter(self._body)

        def close(self) -> None:
            self._body.close()

    class AsyncStream(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, body: AsyncBody) -> None:
            self._body = body

        def __aiter__(self) -> AsyncIterator[bytes]:
            return aiter(self._body)

        async def aclose(self) -> None:
            await self._body.aclose()

    class RouterTransport(library.BaseTransport, library.AsyncBaseTransport):  # type: ignore[misc]
        """A view of a Router: closing it closes nothing but itself."""

        def __init__(self, desk: Desk) -> None:
            self._desk = desk

        def handle_request(self, request: Any) -> Any:
            head, body = self._desk.handle(
                request.method, request.url.path, request.headers.items(), request.read(), _timeout(request)
            )
            return library.Response(head.status, headers=head.headers, stream=Stream(body))

        async def handle_async_request(self, request: Any) -> Any:
            data = await request.aread()
            head, body = await self._desk.ahandle(
                request.method, request.url.path, request.headers.items(), data, _timeout(request)
            )
            return library.Response(head.status, headers=head.headers, stream=AsyncStream(body))

    return RouterTransport


def _timeout(request: Any) -> float | None:
    """The caller's wish, in seconds."""
    told: float | None = (request.extensions.get("timeout") or {}).get("read")
    return told
