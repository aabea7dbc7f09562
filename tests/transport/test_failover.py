"""Real sockets: every way a server can fail before it answers ends at the next one, and after that in a true error."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
from servers.fault import CUT, RESET, FaultServer, chunked, head, hello, plain, sse, word
from transport.faces import LOOPED, both, chat, stream

from hydra_infer import (
    AllBackendsFailed,
    Backend,
    ContextTooLong,
    DeadlineExceeded,
    Refused,
    Router,
    StreamBroken,
    UnknownModel,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

ROLE = sse({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
HTML = b"<html><title>Login</title></html>"

BEFORE_AN_ANSWER: dict[str, list[Any]] = {
    "reset before headers": [RESET],
    "closed before headers": [CUT],
    "half the headers": [b"HTTP/1.1 200 OK\r\ncontent-", CUT],
    "not HTTP": [b"SSH-2.0-OpenSSH\r\n", CUT],
    "short body": [head(200, content_length=1000), b"{", CUT],
    "HTML with 200": plain(HTML, content_type="text/html"),
    "HTML with 502": plain(HTML, 502, content_type="text/html"),
    "empty with 200": plain(b""),
    "empty stream": chunked(),
    "error with 200": plain({"error": {"message": "CUDA out of memory"}}),
    "error event first": chunked(sse({"error": {"message": "CUDA out of memory"}})),
    "role, then an error": chunked(ROLE, sse({"error": "aborted"})),
    "role, then the end": chunked(ROLE),
    "pings, then the end": chunked(b": ping\n\n", b": ping\n\n"),
    "only [DONE]": chunked(sse(b"[DONE]")),
    "malformed JSON": chunked(sse(b"{nope")),
    "no choices": plain({"choices": []}),
    "damaged gzip": [head(200, content_encoding="gzip", content_length=8), b"not gzip"],
    "429 with a long Retry-After": plain({}, 429, retry_after=60),
    "503 loading": plain({"error": {"message": "Loading model"}}, 503),
    "500": plain({"error": "model runner has unexpectedly stopped"}, 500),
    "401": plain({"error": {"message": "bad key"}}, 401),
    "404 model": plain({"error": "model 'm' not found"}, 404),
    "404 path": plain({"detail": "Not Found"}, 404),
    "redirect elsewhere": plain(b"", 307, location="http://other.invalid/v1/chat/completions"),
    "stall before headers": [30.0],
    "stall after headers": [head(200, "text/event-stream", transfer_encoding="chunked"), 30.0],
    "stall after the role": chunked(ROLE, 30.0),
    "pings without a token": chunked(*[b": ping\n\n", 0.05] * 200),
    "a body dripping": [head(200, content_length=1000), b"{", *[b" ", 0.05] * 200],
    "headers dripping": [b"HTTP/1.1 200 OK\r\n", *[b"x", 0.05] * 200],
}


@both
@pytest.mark.parametrize("fault", BEFORE_AN_ANSWER)
def test_before_an_answer_the_next_one_is_asked_at_once(face: str, fault: str) -> None:
    with FaultServer(BEFORE_AN_ANSWER[fault]) as bad, FaultServer(hello("good")) as good:
        router = Router(
            [Backend.openai(bad.url, models=["m"], name="bad"), Backend.openai(good.url, models=["m"], name="good")],
            first_token_timeout=0.3,
        )
        pieces: list[str] = []
        reply = stream(face, router, pieces)
        assert pieces == ["hello", " from", " good", ""]
        assert (reply.text, reply.backend, reply.finish_reason) == ("hello from good", "good", "stop")
        assert [attempt.backend for attempt in reply.attempts] == ["bad", "good"]
        assert reply.attempts[0].result != "answered"
        assert reply.attempts[0].seconds < 3.0  # first_token_timeout, not the fault's 10 to 30 s
        assert len(bad.requests) == 1
        router.close()


@both
def test_nothing_listening_and_no_such_name(face: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with FaultServer(hello("good")) as good:
        urls = [f"127.0.0.1:{port}", "no-such-host.invalid", good.url]
        router = Router([Backend.openai(url, models=["m"]) for url in urls])
        reply = chat(face, router)
        assert [attempt.result for attempt in reply.attempts] == ["unreachable", "unreachable", "answered"]
        router.close()


_READ = 0.05  # time to be read: what arrives together with a fault is known to be broken before anybody has seen it
AFTER_THE_FIRST_TOKEN: dict[str, list[Any]] = {
    "reset": chunked(word("so"), word(" far"), _READ, RESET, end=False),
    "cut": chunked(word("so"), word(" far"), _READ, CUT, end=False),
    "clean end without a finish_reason": chunked(word("so"), word(" far"), _READ),
    "error event": chunked(word("so"), word(" far"), _READ, sse({"error": {"message": "CUDA error"}})),
    "one bad event": chunked(word("so"), word(" far"), _READ, sse(b"{nope"), word("never seen")),
    "silence": chunked(word("so"), word(" far"), _READ, 30.0),
    "pings and no more tokens": chunked(word("so"), word(" far"), _READ, *[b": ping\n\n", 0.05] * 200),
}


@both
@pytest.mark.parametrize("fault", AFTER_THE_FIRST_TOKEN)
def test_after_the_first_token_nothing_is_spliced_and_the_error_has_the_text(face: str, fault: str) -> None:
    with FaultServer(AFTER_THE_FIRST_TOKEN[fault]) as bad, FaultServer(hello("good")) as good:
        backends = [Backend.openai(bad.url, models=["m"], name="bad"), Backend.openai(good.url, models=["m"], name="good")]
        router = Router(backends, idle_timeout=0.3)
        pieces: list[str] = []
        with pytest.raises(StreamBroken) as caught:
            stream(face, router, pieces)
        assert (caught.value.text, caught.value.backend, "".join(pieces)) == ("so far", "bad", "so far")
        assert good.requests == []
        assert chat(face, router).backend == "good"  # the next call goes elsewhere
        router.close()


@both
def test_a_long_healthy_answer_outlives_every_timer_but_the_whole_one(face: str) -> None:
    script = chunked(*[step for index in range(12) for step in (word(str(index)), 0.1)], word("", "stop"))
    with FaultServer(script) as slow:
        router = Router([Backend.openai(slow.url, models=["m"])], first_token_timeout=0.5, idle_timeout=0.5, timeout=0.9)
        pieces: list[str] = []
        assert stream(face, router, pieces).text == "01234567891011"
        with pytest.raises(StreamBroken, match="timeout"):
            chat(face, router)  # one attempt of a plain call has `timeout` to its complete answer
        with pytest.raises(DeadlineExceeded, match="deadline"):
            stream(face, router, [], deadline=0.4)
        router.close()


@both
def test_a_tool_call_sent_whole_after_silence_arrives(face: str) -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    script = chunked(
        word("wait"), *[b": ping\n\n", 0.1] * 6, sse({"choices": [{"index": 0, "delta": call, "finish_reason": "tool_calls"}]})
    )
    with FaultServer(script) as server:
        router = Router([Backend.openai(server.url, models=["m"])], idle_timeout=0.3)
        tools = [{"type": "function", "function": {"name": "f"}}]
        assert chat(face, router, tools=tools).tool_calls[0]["function"]["name"] == "f"
        with pytest.raises(StreamBroken):
            chat(face, router)
        router.close()


@both
def test_the_callers_own_mistake_comes_back_as_it_is(face: str) -> None:
    with FaultServer(plain({"error": {"message": "temperature too high"}}, 400)) as bad, FaultServer(hello("good")) as good:
        router = Router([Backend.openai(bad.url, models=["m"], name="bad"), Backend.openai(good.url, models=["m"])])
        with pytest.raises(Refused, match="temperature too high") as caught:
            chat(face, router)
        assert (caught.value.status, caught.value.backend) == (400, "bad")
        assert good.requests == []
        assert router.explain("m").order[0] == "bad"  # and it does not rest
        router.close()


@both
def test_overflow_is_told_as_such(face: str) -> None:
    with FaultServer(plain({"error": {"message": "too long", "code": "context_length_exceeded"}}, 400)) as server:
        router = Router([Backend.openai(server.url, models=["m"], context=4096)])
        with pytest.raises(ContextTooLong, match="too long"):
            chat(face, router)
        router.close()


@both
def test_when_all_fail_the_error_tells_each_ones_story(face: str) -> None:
    with FaultServer(plain({}, 500)) as one, FaultServer([RESET]) as two:
        router = Router([Backend.openai(one.url, models=["m"], name="one"), Backend.openai(two.url, models=["m"], name="two")])
        with pytest.raises(AllBackendsFailed) as caught:
            chat(face, router)
        assert [(attempt.backend, attempt.status) for attempt in caught.value.attempts] == [("one", 500), ("two", None)]
        assert "one: HTTP 500" in str(caught.value)
        router.close()


@both
def test_a_kept_connection_that_the_server_closed_costs_one_free_retry(face: str) -> None:
    with FaultServer([*plain({"data": [{"id": "m"}]})], [RESET], hello("a")) as server:
        router = Router([Backend.openai(server.url)], retries=0)
        if face == "sync":
            router.models()
            assert router.chat("m", "hi").text == "hello from a"
        else:

            async def main() -> str:
                await router.aio.models()
                return (await router.aio.chat("m", "hi")).text

            assert asyncio.run(main()) == "hello from a"
        assert len(server.requests) == 3
        router.close()


@both
def test_one_connection_serves_call_after_call(face: str) -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        if face == "sync":
            for _ in range(5):
                router.chat("m", "hi")
        else:

            async def main() -> None:
                for _ in range(5):
                    await router.aio.chat("m", "hi")

            asyncio.run(main())
        assert (len(server.requests), server.connections) == (5, 1)
        router.close()


@both
def test_leaving_early_cancels_upstream_and_frees_the_slot(face: str) -> None:
    script = chunked(word("one"), *[word("more"), 0.05] * 400)
    with FaultServer(script) as server:
        router = Router([Backend.openai(server.url, models=["m"], max_parallel=1)])
        if face == "sync":
            with router.stream("m", "hi") as answer:
                next(answer)
        else:

            async def main() -> None:
                async with await router.aio.stream("m", "hi") as answer:
                    await anext(answer)

            asyncio.run(main())
        assert server.left.wait(5)
        assert router._board.pool.places[0].in_flight == 0
        router.close()


@both
def test_a_stream_dropped_without_closing_cancels_upstream_too(face: str) -> None:
    with FaultServer(chunked(word("one"), *[word("more"), 0.05] * 400)) as server:
        router = Router([Backend.openai(server.url, models=["m"], max_parallel=1)])
        if face == "sync":
            answer = router.stream("m", "hi")
            next(answer)
            del answer
        else:

            async def main() -> None:
                answer = await router.aio.stream("m", "hi")
                await anext(answer)
                del answer
                await asyncio.to_thread(server.left.wait, 5)

            asyncio.run(main())
        assert server.left.wait(5)
        assert router._board.pool.places[0].in_flight == 0
        router.close()


@pytest.mark.parametrize("face", LOOPED, indirect=True)
def test_a_cancelled_task_frees_its_slot(face: str) -> None:

    async def main(router: Router) -> None:
        task = asyncio.create_task(router.aio.chat("m", "hi"))
        await asyncio.sleep(0.2)
        assert router._board.pool.places[0].in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert router._board.pool.places[0].in_flight == 0

    with FaultServer([30.0]) as server:
        router = Router([Backend.openai(server.url, models=["m"])])
        asyncio.run(main(router))
        assert server.left.wait(5)
        router.close()


@both
def test_after_cooldown_a_server_that_came_back_is_used_again(face: str) -> None:
    first = FaultServer(hello("first"))
    with FaultServer(hello("second")) as second:
        backends = [
            Backend.openai(first.url, models=["m"], name="first"),
            Backend.openai(second.url, models=["m"], name="second"),
        ]
        router = Router(backends, cooldown=0.4)
        assert chat(face, router).backend == "first"
        port = first.port
        first.close()
        assert chat(face, router).backend == "second"
        with FaultServer(hello("first"), port=port):
            assert chat(face, router).backend == "second"  # it rests
            time.sleep(0.5)
            assert chat(face, router).backend == "first"
            router.close()


def test_a_full_backend_hands_its_slot_to_whoever_waits_in_threads_and_loops_alike() -> None:

    with FaultServer(chunked(word("x"), 0.1, word("", "stop"))) as server:
        router = Router([Backend.openai(server.url, models=["m"], max_parallel=1)])
        texts: list[str] = []
        threads = [threading.Thread(target=lambda: texts.append(router.chat("m", "hi").text)) for _ in range(3)]
        for thread in threads:
            thread.start()

        async def main() -> list[str]:
            return [reply.text for reply in await asyncio.gather(*(router.aio.chat("m", "hi") for _ in range(3)))]

        texts += asyncio.run(main())
        for thread in threads:
            thread.join(10)
        assert texts == ["x"] * 6
        router.close()


@both
def test_an_unknown_model_asks_nobody(face: str) -> None:
    with FaultServer(hello("a")) as server:
        router = Router([Backend.openai(server.url, models=["mistral"])])
        with pytest.raises(UnknownModel, match="served are: mistral"):
            chat(face, router)
        assert server.requests == []
        router.close()


@both
def test_a_server_that_lists_its_own_models_is_asked_at_first_use(face: str) -> None:
    with FaultServer(plain({"data": [{"id": "m"}]}), hello("a")) as server:
        router = Router([Backend.openai(server.url, api_key="k")])
        assert chat(face, router).text == "hello from a"
        assert [(method, path) for method, path, *_ in server.requests] == [
            ("GET", "/v1/models"),
            ("POST", "/v1/chat/completions"),
        ]
        assert all(headers["authorization"] == "Bearer k" for _, _, headers, _ in server.requests)
        router.close()
