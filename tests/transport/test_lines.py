"""The lines to servers: the same bytes out, the same reading of hostile bytes in, by threads, httpcore and aiohttp."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import httpcore
import pytest
from servers.fault import CUT, FaultServer, chunked, head, hello, word
from transport.faces import LOOPED, both, chat

from hydra_infer import AllBackendsFailed, Backend, HydraError, Router, StreamBroken, __version__
from hydra_infer.transport.aiohttp_line import AiohttpLine, async_line
from hydra_infer.transport.network import _AsyncStream as AsyncStream
from hydra_infer.transport.network import _SyncStream as SyncStream
from hydra_infer.transport.upstream import AsyncHttpLine, LineFailed
from hydra_infer.transport.watch import CURRENT, Watch, quick
from hydra_infer.wire.exchange import WireRequest

CERTIFICATE = Path(__file__).parents[1] / "data" / "localhost.pem"  # self-signed, for 127.0.0.1, with its key

pytestmark = pytest.mark.usefixtures("no_leaks")


def one(server: FaultServer, **settings: Any) -> Router:
    return Router([Backend.openai(server.url, models=["m"], api_key="k")], **settings)


@both
def test_what_goes_out_is_ours_alone(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with FaultServer(chunked(word("x"), word("", "stop"))) as server:
        router = one(server)
        chat(face, router)
        method, path, headers, body = server.requests[0]
        assert (method, path) == ("POST", "/v1/chat/completions")
        assert headers == {
            "host": f"127.0.0.1:{server.port}",
            "accept": "text/event-stream",
            "accept-encoding": "identity",
            "authorization": "Bearer k",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "user-agent": f"hydra-infer/{__version__}",
        }
        router.close()


@both
def test_a_callers_own_user_agent_wins(face: str) -> None:
    with FaultServer(chunked(word("x"), word("", "stop"))) as server:
        router = one(server)
        chat(face, router, extra_headers={"User-Agent": "mine"})
        (_, _, headers, _) = server.requests[0]
        assert headers["user-agent"] == "mine"
        router.close()


@both
def test_no_cookie_is_kept(face: str) -> None:
    cookie = head(200, "text/event-stream", transfer_encoding="chunked", set_cookie="a=b; Path=/")
    with FaultServer([cookie, *chunked(word("x"), word("", "stop"))[1:]]) as server:
        router = one(server)

        async def twice() -> None:
            await router.aio.chat("m", "hi")
            await router.aio.chat("m", "hi")

        if face == "sync":
            router.chat("m", "hi")
            router.chat("m", "hi")
        else:
            asyncio.run(twice())
        assert ["cookie" in headers for _, _, headers, _ in server.requests] == [False, False]
        router.close()


@both
def test_a_body_of_megabytes_arrives_whole(face: str) -> None:
    text = "picture " * 400_000
    with FaultServer(hello("a")) as server:
        router = one(server)
        chat(face, router, extra_body={"picture": text})
        assert text.encode() in server.requests[0][3]
        router.close()


@both
def test_a_slow_reader_gets_all_that_came_before_the_fault(face: str) -> None:
    with FaultServer(chunked(word("one"), 0.1, word(" two"), word(" three"), CUT, end=False)) as server:
        router = one(server)
        pieces: list[str] = []

        async def slowly() -> None:
            async with await router.aio.stream("m", "hi") as answer:
                async for chunk in answer:
                    pieces.append(chunk.text)
                    await asyncio.sleep(0.3)

        with pytest.raises(StreamBroken) as caught:
            if face == "sync":
                with router.stream("m", "hi") as answer:
                    for chunk in answer:
                        pieces.append(chunk.text)
                        time.sleep(0.3)
            else:
                asyncio.run(slowly())
        assert (caught.value.text, "".join(pieces)) == ("one two three", "one two three")
        router.close()


def test_a_requests_head_and_body_leave_together() -> None:
    written: list[bytes] = []

    class Recorder(httpcore.NetworkStream):
        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            written.append(buffer)

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return b"answer"

    class AsyncRecorder(httpcore.AsyncNetworkStream):
        async def write(self, buffer: bytes, timeout: float | None = None) -> None:
            written.append(buffer)

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return b"answer"

    async def main(stream: Any) -> None:
        await stream.write(b"head ")
        await stream.write(b"body")
        assert await stream.read(9) == b"answer"

    token = CURRENT.set(Watch(quick(5.0), time.monotonic))
    stream = SyncStream(Recorder())
    stream.write(b"head ")
    stream.write(b"body")
    assert stream.read(9) == b"answer"
    stream.write(b"x" * 100_000)  # waits for nothing
    asyncio.run(main(AsyncStream(AsyncRecorder())))
    CURRENT.reset(token)
    assert written == [b"head body", b"x" * 100_000, b"head body"]


@both
def test_a_header_that_is_none_is_told_and_not_raised_raw(face: str) -> None:
    with FaultServer(hello("a")) as server:
        router = one(server)
        with pytest.raises(HydraError):
            chat(face, router, extra_headers={"x-note": "two\r\nlines"})
        assert server.requests == []
        router.close()


HOSTILE: dict[str, list[Any]] = {
    "an endless header line": [b"HTTP/1.1 200 OK\r\nx: ", *[b"y" * 65536] * 400],
    "endless headers": [b"HTTP/1.1 200 OK\r\n", *[b"x: y\r\n" * 10_000] * 400],
    "an endless status line": [b"HTTP/1.1 200 ", *[b"y" * 65536] * 400],
    "a chunk of no size": [head(200, "text/event-stream", transfer_encoding="chunked"), b"5;\r\nhello\r\nZZ\r\n", 30.0],
    "two lengths": [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}", 30.0],
}


@both
@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_bytes_end_the_attempt_long_before_its_timer(face: str, fault: str) -> None:
    with FaultServer(HOSTILE[fault]) as bad, FaultServer(hello("good")) as good:
        backends = [Backend.openai(bad.url, models=["m"], name="bad"), Backend.openai(good.url, models=["m"], name="good")]
        router = Router(backends, first_token_timeout=20)
        reply = chat(face, router)
        assert reply.backend == "good"
        assert reply.attempts[0].result == "broken"
        assert bad.left.wait(5)  # and nobody goes on reading
        router.close()


@both
def test_tls_is_checked_against_the_systems_authorities_and_ssl_cert_file(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    with FaultServer(hello("a"), tls=tls) as server:
        router = one(server)
        with pytest.raises(AllBackendsFailed, match="CERTIFICATE_VERIFY_FAILED"):
            chat(face, router)
        router.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        router = one(server)
        assert chat(face, router).text == "hello from a"
        assert len(server.requests) == 1
        router.close()


@pytest.mark.parametrize("face", LOOPED, indirect=True)
def test_connections_end_with_their_loop(face: str) -> None:
    with FaultServer(hello("a")) as server:
        router = one(server)
        for _ in range(3):
            chat(face, router)
        assert server.connections == 3
        for _ in range(100):
            if not server._open:
                break
            time.sleep(0.05)
        assert not server._open
        router.close()


@pytest.mark.parametrize(("release", "kind"), [("3.14.5", AiohttpLine), ("3.13.4", AiohttpLine), ("3.13.3", AsyncHttpLine)])
def test_a_release_without_limits_on_headers_is_not_used(release: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp.__version__", release)
    assert isinstance(async_line(Backend.openai("http://127.0.0.1:1")), kind)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert isinstance(async_line(Backend.openai("http://127.0.0.1:1")), AsyncHttpLine)


@pytest.mark.parametrize("line", [AiohttpLine, AsyncHttpLine])
def test_who_ends_an_attempt_is_told_apart(line: type[AiohttpLine | AsyncHttpLine]) -> None:
    async def main(url: str) -> None:
        asked, task = line(Backend.openai(url)), asyncio.current_task()
        assert task is not None
        watch = Watch(quick(0.05), time.monotonic)
        with pytest.raises(LineFailed):
            await asked.send(WireRequest("GET", "/v1/models", {}), watch)
        assert watch.expired
        watch.stop()
        assert task.cancelling() == 0
        late = Watch(quick(30), time.monotonic)
        sending = asyncio.create_task(asked.send(WireRequest("GET", "/v1/models", {}), late))
        await asyncio.sleep(0.05)
        late.expired = True  # as whoever looked at what was left just now has noted
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        late.stop()
        await asked.aclose()

    with FaultServer([5.0]) as server:
        asyncio.run(main(server.url))


@both
def test_a_fault_is_told_in_the_systems_own_words(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with FaultServer(()) as server:
        off = server.url
    assert _fault(face, off) == "connection refused"
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert _fault(face, "http://box.invalid:5000") == "the name box.invalid cannot be resolved: name or service not known"


def _fault(face: str, url: str) -> str:
    with Router([Backend.openai(url, models=["m"])], retries=0) as router, pytest.raises(AllBackendsFailed) as caught:
        chat(face, router)
    return caught.value.attempts[0].message
