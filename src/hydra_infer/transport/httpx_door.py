"""The Router as an httpx transport: hand it to any SDK that takes an httpx client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx

from .desk import AsyncBody, Body, Desk

__all__ = ["async_client", "client"]


class _Stream(httpx.SyncByteStream):
    def __init__(self, body: Body) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        self._body.close()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, body: AsyncBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)

    async def aclose(self) -> None:
        await self._body.aclose()


class RouterTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A view of a Router: closing it closes nothing but itself."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        timeout = (request.extensions.get("timeout") or {}).get("read")
        head, body = self._desk.handle(request.method, request.url.path, request.headers.items(), request.read(), timeout)
        return httpx.Response(head.status, headers=head.headers, stream=_Stream(body))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeout = (request.extensions.get("timeout") or {}).get("read")
        head, body = await self._desk.ahandle(
            request.method, request.url.path, request.headers.items(), await request.aread(), timeout
        )
        return httpx.Response(head.status, headers=head.headers, stream=_AsyncStream(body))


def client(desk: Desk) -> httpx.Client:
    """An httpx.Client whose every request goes to the Router. It has no timeout of its own, so that a caller's is told apart."""
    return httpx.Client(transport=RouterTransport(desk), base_url="http://hydra.invalid/v1", timeout=None, trust_env=False)


def async_client(desk: Desk) -> httpx.AsyncClient:
    """The same for event loops."""
    return httpx.AsyncClient(transport=RouterTransport(desk), base_url="http://hydra.invalid/v1", timeout=None, trust_env=False)
