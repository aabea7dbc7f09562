"""One Router for everybody at once, and a host that is switched off."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from servers.fault import FaultServer, Script, chunked, hello, sse, word
from transport.faces import LOOPED, both, chat

from hydra_infer import Backend, Router

pytestmark = pytest.mark.usefixtures("no_leaks")

THREADS, LOOPS, CALLS = 16, 4, 12


def number(body: bytes) -> Script:
    """Answers with the number in the question."""
    asked = json.loads(body)["messages"][-1]["content"]
    return chunked(word("answer "), word(asked), word("", "stop"), sse(b"[DONE]"))


@pytest.mark.parametrize("face", LOOPED, indirect=True)
def test_threads_and_event_loops_share_one_router_and_nothing_is_mixed_up(face: str) -> None:
    seen: list[str] = []
    start = threading.Barrier(THREADS + LOOPS)

    def in_a_thread(who: int) -> None:
        start.wait()
        for call in range(CALLS):
            asked = f"t{who}-{call}"
            with router.stream("m", asked) as stream:
                seen.append("".join(map(str, stream)) + "|" + asked)

    def in_a_loop(who: int) -> None:
        async def one(call: int) -> None:
            asked = f"l{who}-{call}"
            reply = await router.aio.chat("m", asked)
            seen.append(reply.text + "|" + asked)

        async def main() -> None:
            start.wait()
            await asyncio.gather(*(one(call) for call in range(CALLS)))

        asyncio.run(main())

    with FaultServer(number) as first, FaultServer(number) as second:
        backends = [Backend.openai(server.url, models=["m"], max_parallel=6) for server in (first, second)]
        router = Router(backends, strategy="least-busy")
        with ThreadPoolExecutor(THREADS + LOOPS) as pool:
            for done in [
                *(pool.submit(in_a_thread, who) for who in range(THREADS)),
                *(pool.submit(in_a_loop, who) for who in range(LOOPS)),
            ]:
                done.result()
        assert sorted(seen) == sorted(
            f"answer {kind}{who}-{call}|{kind}{who}-{call}"
            for kind, count in (("t", THREADS), ("l", LOOPS))
            for who in range(count)
            for call in range(CALLS)
        )
        assert len(first.requests) + len(second.requests) == len(seen)
        assert [row.in_flight for row in router.status().backends] == [0, 0]
        router.close()


@contextmanager
def switched_off() -> Iterator[str]:
    """An address that answers nothing, as that of a host that is off: a queue of connections that is full and never emptied."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # the kernel takes one or two more than it was told
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@both
def test_a_host_that_is_off_costs_one_call_its_connect_timeout_and_later_calls_nothing(face: str) -> None:
    with switched_off() as url, FaultServer(hello("good")) as good:
        router = Router(
            [Backend.openai(url, models=["m"], name="off"), Backend.openai(good.url, models=["m"], name="good")],
            connect_timeout=0.4,
        )
        off, answered = chat(face, router).attempts
        assert (off.backend, off.result, answered.backend) == ("off", "unreachable", "good")
        assert 0.35 <= off.seconds < 2.0  # its own limit, and far from a system's minutes
        attempts: Any = [chat(face, router).attempts for _ in range(3)]
        assert [[attempt.backend for attempt in one] for one in attempts] == [["good"]] * 3
        router.close()
