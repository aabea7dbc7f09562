"""The Router as an OpenAI-compatible server with a live page: a bare ASGI application, run by uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib.resources
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from .errors import ConfigError, MissingExtra
from .live import Live, page
from .router import Router
from .routing.verdict import error_answer
from .transport.desk import AsyncBody, Head
from .wire.sse import encode_event

__all__ = ["App", "serve"]

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

# A silent stream is committed with 200 and kept alive by comments, for proxies and clients that give up on silence.
PING_SECONDS = 15.0
MAX_BODY_BYTES = 256 * 2**20
# A request's body must go on coming: a client that sends a byte now and then would hold what it has sent for ever.
BODY_SECONDS = 60.0
# What is answered here without a router, by path, and how it may be asked.
OWN = {"/": ("GET", "HEAD"), "/health": ("GET",), "/openapi.json": ("GET",), "/metrics": ("GET",), "/live/events": ("GET",)}
# Needs no key: none of it tells anything of the servers.
OPEN = ("/", "/health", "/openapi.json")
# A router in front of a router in front of itself would ask for ever; three in a row is more than anybody needs.
MAX_HOPS = 3
HOPS = "x-hydra-hops"
# Whether a stream is wanted; inside a string the quotes would be escaped.
_UNPRINTABLE = re.compile(rb"[\x00-\x1f\x7f]")
_STREAMED = re.compile(rb'(?<!\\)"stream"\s*:\s*true')


def serve(
    router: Router, *, host: str = "127.0.0.1", port: int = 8100, api_key: str | None = None, cors: str | None = None
) -> None:
    """Serve until interrupted. Beyond loopback an `api_key` is required. `cors` is the one Origin that browsers may come from.

    The address itself is a page that shows the servers, their models and the last failovers as they are.

    Raises MissingExtra without uvicorn, ConfigError for an open door and for a port that cannot be.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port={port} is no port", hint="a number from 1 to 65535, or 0 for any that is free")
    if api_key is None and not _is_loopback(host):
        raise ConfigError(
            f"host={host!r} can be reached by others and there is no api_key", hint="give api_key=…, or listen on 127.0.0.1"
        )
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingExtra("uvicorn is not installed", hint="pip install 'hydra-infer[serve]'") from error
    app = App(router, api_key=api_key, cors=cors)
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, access_log=False, server_header=False))
    # uvicorn waits for every answer before it stops, and a live page's has no end of its own.
    app.live.closing = lambda: server.should_exit
    with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn after an orderly end
        server.run()


class App:
    """The ASGI application, for any ASGI server. `ping`: seconds of silence after which a stream gets a comment."""

    def __init__(
        self, router: Router, *, api_key: str | None = None, cors: str | None = None, ping: float = PING_SECONDS
    ) -> None:
        self._router, self._desk = router, router.desk()
        self._key = api_key.encode() if api_key else None
        # Fetch's wildcard covers every header but Authorization.
        self._cors = (
            {"access-control-allow-origin": cors, "access-control-allow-headers": "authorization, *", "vary": "origin"}
            if cors
            else {}
        )
        self._ping = ping
        self.live = Live(router._board)  # noqa: SLF001 - two doors of one house

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            raise RuntimeError(f"there is no {scope['type']} here")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.shutdown":
                await self._router.aio.close()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if path in OPEN and method in OWN[path]:
            await self._plain(send, *_open_place(path))
            return
        answer = self._at_the_door(method, path, headers)
        if answer is None:
            body = await _read(receive)
            if isinstance(body, bytes):
                await self._route(method, path, headers, body, receive, send)
                return
            answer = body
        allow = {"allow": ", ".join(OWN[path])} if answer[0] == 405 else {}
        await self._plain(send, Head(answer[0], {"content-type": "application/json", **allow}), answer[1])

    def _at_the_door(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes] | None:
        """An answer that needs no routing: preflight, a missing key, a loop. None lets the request in."""
        if method == "OPTIONS" and self._cors:
            return 200, b"{}"
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self._key is not None and not hmac.compare_digest(given, self._key):
            return 401, error_answer("the API key is missing or wrong", "invalid_api_key", kind="invalid_request_error")
        if method not in OWN.get(path, (method,)):
            return 405, error_answer(f"{path} is asked for by {' or '.join(OWN[path])} only", "method_not_allowed")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind not in ("", "application/json") and not kind.endswith("+json"):
            # A web page may send such requests to any address, this machine's own too, without being asked first.
            return 415, error_answer(f"the body is said to be {kind[:80]!r}, not application/json", "unsupported_media_type")
        hops = headers.get(HOPS, "0")
        if re.fullmatch(r"[0-9]{1,3}", hops) is None or int(hops) >= MAX_HOPS:
            return 508, error_answer(
                f"this request has come through {hops[:9]} routers already: they ask each other in a circle", "loop_detected"
            )
        return None

    async def _route(self, method: str, path: str, headers: dict[str, str], body: bytes, receive: Receive, send: Send) -> None:
        if path == "/metrics":
            await self._plain(send, Head(200, {"content-type": "text/plain; version=0.0.4"}), self._metrics().encode())
            return
        if path == "/live/events":
            await self._show(receive, send)
            return
        onward = {**headers, HOPS: str(int(headers.get(HOPS, "0")) + 1)}
        asking = asyncio.ensure_future(self._desk.ahandle(method, path, onward.items(), body, None))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await self._answer(asking, leaving, _STREAMED.search(body) is not None, send)
        finally:
            # Whoever leaves stops the server's work: cancelling closes the stream behind it and frees its slot.
            for task in (asking, leaving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            if not asking.cancelled() and asking.exception() is None:
                await asking.result()[1].aclose()

    async def _answer(
        self, asking: asyncio.Future[tuple[Head, AsyncBody]], leaving: asyncio.Future[None], may_stream: bool, send: Send
    ) -> None:
        committed = False
        while not asking.done():
            await _first_of(asking, leaving, self._ping if may_stream else None)
            if leaving.done():
                return
            if not asking.done():
                if not committed:
                    await self._start(send, Head(200, {"content-type": "text/event-stream"}))
                    committed = True
                await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
        head, body = asking.result()
        if not committed:
            await self._start(send, head)
        parts = aiter(body) if head.status == 200 or not committed else _as_event(body)
        await self._pass_on(parts, leaving, send, pings=head.headers.get("content-type") == "text/event-stream")

    async def _pass_on(self, parts: AsyncIterator[bytes], leaving: asyncio.Future[None], send: Send, *, pings: bool) -> None:
        """The body's parts as they come, with a comment whenever none has come for a while."""
        while not leaving.done():
            coming: asyncio.Future[bytes | None] = asyncio.ensure_future(anext(parts, None))
            try:
                while not coming.done():
                    await _first_of(coming, leaving, self._ping if pings else None)
                    if leaving.done():
                        return
                    if not coming.done():
                        await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
            finally:
                if not coming.done():
                    coming.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await coming
            part = coming.result()
            await send({"type": "http.response.body", "body": part or b"", "more_body": part is not None})
            if part is None:
                return

    async def _show(self, receive: Receive, send: Send) -> None:
        """The live page's events, until its reader leaves."""
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await self._start(send, Head(200, {"content-type": "text/event-stream"}))
            async with contextlib.aclosing(self.live.events()) as events:
                await self._pass_on(events, leaving, send, pings=True)
        finally:
            leaving.cancel()

    async def _plain(self, send: Send, head: Head, body: bytes) -> None:
        await self._start(send, head)
        await send({"type": "http.response.body", "body": body})

    async def _start(self, send: Send, head: Head) -> None:
        headers = [
            # A model's name may come from a server, and a line break in it would begin another header.
            (name.encode(), _UNPRINTABLE.sub(b"?", str(value).encode("latin-1", "replace")))
            for name, value in {**head.headers, **self._cors}.items()
        ]
        await send({"type": "http.response.start", "status": head.status, "headers": [*headers, (b"cache-control", b"no-store")]})

    def _metrics(self) -> str:
        """Prometheus' text format, from what is known: nobody is asked."""
        lines = []
        for name, key in (
            ("answers", "answers"),
            ("prompt_tokens", "prompt_tokens"),
            ("completion_tokens", "completion_tokens"),
            ("seconds", "seconds"),
        ):
            lines.append(f"# TYPE hydra_{name}_total counter")
            lines += [
                f"hydra_{name}_total{{backend={json.dumps(backend)},model={json.dumps(model)}}} {getattr(entry, key)}"
                for backend, model, entry in self._router.usage()
            ]
        return "\n".join(lines) + "\n"


def _open_place(path: str) -> tuple[Head, bytes]:
    """What anybody may see."""
    if path == "/":
        return page()
    json_head = Head(200, {"content-type": "application/json"})
    if path == "/health":
        return json_head, b'{"status":"ok"}'
    return json_head, importlib.resources.files(__package__).joinpath("openapi.json").read_bytes()


async def _read(receive: Receive) -> bytes | tuple[int, bytes]:
    """The whole request body; or status and body of a refusal, where it is too large or does not go on."""
    body = bytearray()
    while True:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                event = await receive()
        except TimeoutError:
            return 408, error_answer(f"nothing more of the request came for {BODY_SECONDS:g} s", "request_timeout")
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return 413, error_answer(f"the request is larger than {MAX_BODY_BYTES} bytes", "too_large")
        if not event.get("more_body"):
            return bytes(body)


async def _first_of(one: asyncio.Future[Any], other: asyncio.Future[Any], seconds: float | None) -> None:
    await asyncio.wait((one, other), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


async def _left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _as_event(body: AsyncBody) -> AsyncIterator[bytes]:
    """A refusal that came after 200 was committed, as the error event that SDKs raise."""
    yield encode_event(b"".join([part async for part in body]))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
