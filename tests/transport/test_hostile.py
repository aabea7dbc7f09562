"""Servers that send without end, or far more than they should: the attempt ends at a bound, and the next server is asked."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers.fault import FaultServer, Script, chunked, head, hello, plain, sse, word
from transport.faces import LOOPED, both, chat, stream

from hydra_infer import AllBackendsFailed, Backend, Router, StreamBroken
from hydra_infer.wire import exchange

pytestmark = pytest.mark.usefixtures("no_leaks")

MIB = 2**20
ROLE = sse({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
CHUNKED = head(200, "text/event-stream", transfer_encoding="chunked")


def endless(piece: bytes, *first: bytes, times: int = 10**6) -> Callable[[bytes], Script]:
    """A chunked answer of `piece` again and again."""

    def script(_: bytes) -> Iterator[bytes]:
        yield CHUNKED
        for part in (*first, *[piece]):
            yield b"%x\r\n%s\r\n" % (len(part), part)
        again = b"%x\r\n%s\r\n" % (len(piece), piece)
        for _ in range(times):
            yield again

    return script


def packed(encoding: str, plain_text: bytes, times: int) -> list[bytes]:
    """A stream that unpacks to `plain_text` many times over."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    data = b"".join(squeeze.compress(plain_text) for _ in range(times)) + squeeze.flush()
    assert len(data) < MIB
    return [head(200, "text/event-stream", content_encoding=encoding, content_length=len(data)) + data]


# What comes, what the attempt says of it, and how many MiB of memory it may cost: some bounds are 64 MiB, and a body is held
# twice for a moment.
HOSTILE: dict[str, tuple[Any, str, int]] = {
    "an endless line": (endless(b"x" * 65536, b"data: "), "one line is larger than 67108864 bytes", 200),
    "an endless body": (endless(b" " * 65536, b'{"choices": ['), "the body is larger than 67108864 bytes", 200),
    "endless events without a token": (endless(sse({}) * 1000), "10000 events came", 32),
    "endless roles": (endless(ROLE * 100), "10000 events came", 64),
    "endless lines of one event": (endless(b"data:\n" * 10_000), "20000 lines", 32),
    "a gzip bomb in a body": (packed("gzip", b"[" + b" " * MIB, 400), "the body is larger than 67108864 bytes", 200),
    "a gzip bomb in a stream": (packed("gzip", b": " + b"x" * MIB, 400), "one line is larger than 67108864 bytes", 200),
    "a deflate bomb of events": (packed("deflate", sse({}) * 20_000, 50), "10000 events came", 64),
    "a brotli body": ([head(200, content_encoding="br", content_length=4), b"abcd"], "encoded as 'br'", 8),
    "gzip in gzip": ([head(200, content_encoding="gzip, gzip", content_length=4), b"abcd"], "encoded as 'gzip, gzip'", 8),
    "a nest of lists": (plain(b'{"choices":' + b"[" * 200_000), "the JSON nests too deeply", 16),
    "a nest in an event": (chunked(sse(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")), "an event that is not JSON", 16),
    "ten million empty objects": (plain(b'{"choices":[' + b"{}," * 10**7 + b"{}]}"), "more than 4000000", 120),
    "an endless error page": ([head(500, "text/html"), *[b"<p>" * 20_000] * 10_000], "HTTP 500", 8),
}
# What the HTTP libraries themselves must end, or what nothing is kept of, so that only the attempt's time ends it.
HOSTILE_HTTP: dict[str, tuple[Any, str, int]] = {
    "10 GB announced": (
        [head(200, content_length=10**10), *[b" " * 65536] * 100_000],
        "announces a body of 10000000000 bytes",
        8,
    ),
    "endless chunk extensions": ([CHUNKED, b"5;", *[b"x" * 65536] * 100_000], "", 16),
    "endless trailers": ([CHUNKED, b"0\r\n", *[b"x: y\r\n" * 10_000] * 10_000], "", 16),
    "endless 1xx": ([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 1000] * 100_000, "", 16),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_bound_ends_the_attempt_and_the_next_server_answers(fault: str) -> None:
    ask_past("sync", *HOSTILE[fault])


@both
@pytest.mark.parametrize("fault", HOSTILE_HTTP)
def test_over_each_http_library_too(face: str, fault: str) -> None:
    ask_past(face, *HOSTILE_HTTP[fault])


def ask_past(face: str, script: Any, words: str, most: int) -> None:
    """Ask by way of a server with this script: how it is found out, by its words, and at what cost, in MiB."""
    with FaultServer(script) as bad, FaultServer(hello("good")) as good:
        rows = [Backend.openai(bad.url, models=["m"], name="bad"), Backend.openai(good.url, models=["m"], name="good")]
        with Router(rows[1:]) as router:
            chat(face, router)  # what is imported at a first call is no cost of the server's
        router = Router(rows, first_token_timeout=20 if words else 0.4)
        tracemalloc.start()
        try:
            reply = chat(face, router)
            peak = tracemalloc.get_traced_memory()[1] / MIB
        finally:
            tracemalloc.stop()
        assert (reply.text, reply.backend) == ("hello from good", "good")
        assert words in reply.attempts[0].message
        assert reply.attempts[0].result in (("broken", "failed") if words else ("broken", "silent"))
        assert peak < most
        router.close()


@both
def test_an_endless_answer_of_tiny_tokens_breaks_at_a_bound(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_STREAM_BYTES", 200_000)  # 256 MiB of them would take a minute
    with FaultServer(endless(word("x") * 100)) as server:
        router = Router([Backend.openai(server.url, models=["m"], name="bad")])
        with pytest.raises(StreamBroken, match="the stream is longer than 200000 bytes") as caught:
            stream(face, router, [])
        assert caught.value.backend == "bad"
        assert set(caught.value.text) == {"x"}
        assert len(caught.value.text) < 200_000
        assert server.left.wait(5)  # and nobody goes on reading
        router.close()


@both
def test_endless_tool_calls_break_too(face: str) -> None:
    calls = sse({"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": "f"}}] * 100}}]})
    with FaultServer(endless(calls * 10)) as server:
        router = Router([Backend.openai(server.url, models=["m"], name="bad")])
        with pytest.raises((StreamBroken, AllBackendsFailed), match="more than 1024 tool calls came"):  # by what comes at once
            stream(face, router, [])
        router.close()


@both
def test_a_server_that_takes_no_more_of_a_request_is_left(face: str) -> None:
    """Half open: the connection is made, and nothing is ever read from it; what is written fills its buffers."""
    with socket.create_server(("127.0.0.1", 0)) as deaf, FaultServer(hello("good")) as good:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        rows = [Backend.openai(url, models=["m"], name="deaf"), Backend.openai(good.url, models=["m"], name="good")]
        router = Router(rows, first_token_timeout=0.5)
        reply = chat(face, router, extra_body={"picture": "x" * 20 * MIB})
        assert [attempt.result for attempt in reply.attempts] == ["silent", "answered"]
        router.close()


@both
@pytest.mark.parametrize("kind", ["openai", "ollama", "tabby"])
def test_an_endless_list_of_models_is_no_list(face: str, kind: str) -> None:
    with FaultServer(endless(b'{"id": "m"},' * 5000, b'{"data": [')) as server:
        router = Router([getattr(Backend, kind)(server.url, name="bad")])
        found = router.status() if face == "sync" else asyncio.run(router.aio.status())
        assert "larger than 16777216 bytes" in str(found)
        assert server.left.wait(5)
        router.close()


def test_an_endless_answer_is_not_waited_for_to_tell_whose_it_is() -> None:
    with FaultServer(endless(b"TabbyAPI " * 5000)) as server:
        router = Router.from_urls([server.url])
        assert router._board.backends[0].kind == "tabby"
        router.close()


@pytest.mark.parametrize("face", LOOPED, indirect=True)
def test_what_a_server_says_in_headers_stays_in_its_place(face: str) -> None:
    """A folded header, a bare carriage return, a name with a space: refused, or harmless text."""
    for odd in (b"x: a\r\n set-cookie: b\r\n", b"x: a\rset-cookie: b\r\n", b"x y: a\r\n", b"x: \x00\r\n", b": a\r\n"):
        script = [b"HTTP/1.1 200 OK\r\n" + odd + b"content-length: 2\r\n\r\n{}"]
        with FaultServer(script) as bad, FaultServer(hello("good")) as good:
            router = Router([Backend.openai(url, models=["m"]) for url in (bad.url, good.url)], first_token_timeout=5)
            assert chat(face, router).text == "hello from good"
            router.close()
