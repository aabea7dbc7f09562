"""The Router as an httpx2 transport: hand it to any SDK that takes an httpx2 client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2

from .desk import AsyncBody, Body, Desk

__all__ = ["async_client", "client"]


class _Stream(httpx2.SyncByteStream):
    def __init__(self, body: Body) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        self._body.close()


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, body: AsyncBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)

    async def aclose(self) -> None:
        await self._body.aclose()


class RouterTransport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A view of a Router: closing it closes nothing but itself."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        timeout = (request.extensions.get("timeout") or {}).get("read")
        head, body = self._desk.handle(request.method, request.url.path, request.headers.items(), request.read(), timeout)
        return httpx2.Response(head.status, headers=head.headers, stream=_Stream(body))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        timeout = (request.extensions.get("timeout") or {}).get("read")
        head, body = await self._desk.ahandle(
            request.method, request.url.path, request.headers.items(), await request.aread(), timeout
        )
        return httpx2.Response(head.status, headers=head.headers, stream=_AsyncStream(body))


def client(desk: Desk) -> httpx2.Client:
    """An httpx2.Client whose every request goes to the Router. It has no timeout of its own, so that a caller's is told apart."""
    return httpx2.Client(transport=RouterTransport(desk), base_url="http://hydra.invalid/v1", timeout=None, trust_env=False)


def async_client(desk: Desk) -> httpx2.AsyncClient:
    """The same for event loops."""
    return httpx2.AsyncClient(transport=RouterTransport(desk), base_url="http://hydra.invalid/v1", timeout=None, trust_env=False)
